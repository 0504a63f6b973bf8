"""The guest with server, mounts and running agent, in the words of an episode."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from agent.storage.durable_file import publish_file, temporary_beside
from tests.lab.catalogue import Workload
from tests.vm.faults import SERVER_UNIT
from tests.vm.guest import STRICT_BASH, GuestCommandError, MachineError
from tests.vm.install import install
from tests.vm.machine import VirtualMachine
from tests.vm.service import AGENT, COMMAND
from tests.vm.smb_server import PUBLIC_SHARE, SMALL_SHARE, SMB_USER
from tests.vm.smb_share import SmbShare

CONFIG = Path(__file__).with_name("config.yaml")
GUEST_PROGRAMS = Path(__file__).with_name("guest")
PROGRAMS, STATE = "/root/lab", "/run/lab"
SPOOL = "/var/log/aod/batches"
MOUNTS = {share: f"/mnt/{share}" for share in (PUBLIC_SHARE, SMALL_SHARE)}

WORKLOAD_UNIT, TELEMETRY_UNIT = "lab-workload", "lab-telemetry"

_MANY_FILES = f"""
cd /srv/{PUBLIC_SHARE}
mkdir many
for i in $(seq -w 0 199); do echo $i > many/$i; done
chown -R {SMB_USER} many
mkdir -p {STATE}
"""
_PRINT_MANIFESTS = f"for f in {SPOOL}/*.done; do test -e $f && tr -d '\\n' <$f && echo; done; true"

Row = dict[str, Any]


class Laboratory:
    """One booted guest for all episodes. Times are the guest's CLOCK_MONOTONIC in nanoseconds."""

    def __init__(self, vm: VirtualMachine) -> None:
        self._vm = vm
        self._share = SmbShare(vm)
        self._seen_bundles: set[str] = set()

    def set_up(self) -> None:
        """Server, mounts, the checkout installed, the agent watching with the lab's rules."""
        self._share.set_up()
        self._vm.run(_MANY_FILES)
        for share, mount_point in MOUNTS.items():
            self._share.mount(mount_point, share)
        install(self._vm)
        self._vm.put(GUEST_PROGRAMS, PROGRAMS)
        self._vm.write("/etc/aod/config.yaml", CONFIG.read_text(), group="aod")
        self._vm.run(["systemctl", "start", AGENT], timeout=300)
        self._vm.wait_until(f"{COMMAND} status | grep -q 'state  *watching$'", timeout=300)

    def versions(self) -> Row:
        """What runs in the guest."""
        script = f"uname -r; smbd --version; {COMMAND} --version"
        kernel, server, agent = self._vm.run(script).stdout.splitlines()
        return {"kernel": kernel, "server": server, "agent": agent}

    def switch(self, script: str) -> tuple[Row, Row]:
        """Run ``script``; the guest's clocks right before it and right after."""
        done = self._vm.run(["python3", "-IS", f"{PROGRAMS}/switch.py", script])
        moments = json.loads(done.stdout)
        return moments["before"], moments["after"]

    def start_recording(self, name: str) -> None:
        """Returns when every command from now on goes into the trace ``name``."""
        unit = f"lab-record-{name}"
        self._vm.run(
            f"systemd-run --quiet --unit={unit} --property=KillSignal=SIGINT "
            f"{COMMAND} record {STATE}/{name}.trace"
        )
        self._vm.wait_until(f"journalctl -u {unit} | grep -q recording", timeout=120)

    def stop_recording(self, name: str, trace: Path) -> None:
        """End it and fetch the trace."""
        self._vm.run(["systemctl", "stop", f"lab-record-{name}"])
        self._fetch(f"{STATE}/{name}.trace", trace)

    def start_telemetry(self) -> None:
        """A row a second about agent and server, from now on."""
        self._start(
            TELEMETRY_UNIT,
            *("telemetry.py", f"{STATE}/telemetry.jsonl"),
            *(f"agent={AGENT}", f"smbd={SERVER_UNIT}:server"),
        )

    def stop_telemetry(self, target: Path) -> None:
        """End it and fetch the rows."""
        self._vm.run(["systemctl", "stop", TELEMETRY_UNIT])
        self._fetch(f"{STATE}/telemetry.jsonl", target)

    def start_workload(self, workload: Workload, seed: int) -> None:
        """Returns when its first operation has been answered."""
        options = {**asdict(workload), "directory": MOUNTS[workload.share], "seed": seed}
        self._vm.run(["rm", "-f", f"{STATE}/workload.json"])
        self._start(WORKLOAD_UNIT, "workload.py", json.dumps(options), f"{STATE}/workload.json")
        self._vm.wait_until(["test", "-e", f"{STATE}/workload.json"])

    def stop_workload(self) -> Row:
        """How many steps it has done, and how many failed with which errno."""
        self._vm.run(["systemctl", "stop", WORKLOAD_UNIT])
        return json.loads(self._vm.run(["cat", f"{STATE}/workload.json"]).stdout)

    def wait_until_shares_work(self) -> Row:
        """The guest's clocks when every mount has answered."""
        looks = "; ".join(f"ls {mount_point} >/dev/null" for mount_point in MOUNTS.values())
        deadline = time.monotonic() + 180
        while time.monotonic() < deadline:
            with suppress(GuestCommandError):
                return self.switch(looks)[1]
        raise MachineError("the shares do not work again")

    def wait_until_calm(self) -> None:
        """Until nothing is collected and no incident is open."""
        deadline = time.monotonic() + 240
        while time.monotonic() < deadline:
            status = self._status()
            if not (status["incidents"]["open"] or status["collections"]["running"]):
                return
            time.sleep(0.5)
        raise MachineError(f"the agent does not calm down: {status}")

    def new_manifests(self) -> list[Row]:
        """Manifests of the bundles made since the last call, oldest first."""
        manifests = [
            json.loads(line) for line in self._vm.run(_PRINT_MANIFESTS).stdout.splitlines()
        ]
        new = [manifest for manifest in manifests if manifest["id"] not in self._seen_bundles]
        self._seen_bundles.update(manifest["id"] for manifest in new)
        return new

    def restore(self, script: str) -> None:
        """After an episode that went wrong: take the fault away and end what may still run."""
        self._vm.run([*STRICT_BASH, script], check=False)
        units = [WORKLOAD_UNIT, TELEMETRY_UNIT, "lab-record-*"]
        self._vm.run(["systemctl", "stop", *units], check=False)
        self.wait_until_shares_work()
        self.wait_until_calm()
        self.new_manifests()

    def _status(self) -> Row:
        return json.loads(self._vm.run([COMMAND, "status", "--json"]).stdout)

    def _fetch(self, remote: str, target: Path) -> None:
        temporary = temporary_beside(target)
        self._vm.get(remote, temporary)
        publish_file(temporary, target)

    def _start(self, unit: str, program: str, *arguments: str) -> None:
        run = ["systemd-run", "--quiet", "--collect", f"--unit={unit}"]
        self._vm.run([*run, "python3", "-I", f"{PROGRAMS}/{program}", *arguments])
