"""Detection on real SMB mounts: what hangs is named, what is well is left alone, and nothing that
happens to the module, the clock or the configuration makes the agent blind."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.vm.conftest import MOUNT_POINT
from tests.vm.faults import NAMESPACE, SERVER_END, Fault
from tests.vm.install import Installation
from tests.vm.machine import VirtualMachine
from tests.vm.service import AGENT, COMMAND
from tests.vm.smb_server import MOUNT_OPTIONS, PUBLIC_SHARE
from tests.vm.smb_share import SERVER, SmbShare

CONFIG_FILE = "/etc/aod/config.yaml"
SPOOL = "/var/log/aod/batches"
SECOND_SERVER, SECOND_MOUNT = "10.99.0.3", "/mnt/second"
DEADLINE_SEC = 180
HOURS = 3600

# Limits far above what a busy host makes of a healthy command.
CONFIG = """\
watch_interval_sec: 10
aod_output_dir: /var/log/aod
watcher:
  actions: [debugdata, mounts]
  batch_max_wait_sec: 0.05
  incident_quiet_sec: 5
collection:
  after_sec: 0
guardian:
  anomalies:
    slow_commands:
      type: latency
      tool: smbslower
      acceptable_count: 3
      single_event_threshold_ms: 5000
      default_threshold_ms: 2500
      exclude_commands: [SMB2_CHANGE_NOTIFY, SMB2_LOCK, SMB2_ECHO]
      actions: [debugdata, mounts]
    hanging_commands:
      type: stall
      stall_sec: 4
      actions: [debugdata, mounts]
    lost_connections:
      type: reconnect
      actions: [debugdata, mounts]
"""
PRINT_MANIFESTS = f"for f in {SPOOL}/*.done; do test -e $f && tr -d '\\n' <$f && echo; done; true"
SET_WALL_CLOCK = (
    "import sys, time; "
    "time.clock_settime(time.CLOCK_REALTIME, time.monotonic() + float(sys.argv[1]))"
)
WALL_OFFSET = "import time; print(time.time() - time.monotonic())"


class Agent:
    """The guest's agent, by its command line and its spool."""

    def __init__(self, vm: VirtualMachine) -> None:
        self._vm = vm
        self._seen: set[str] = set()

    def configure(self, text: str = CONFIG) -> None:
        self._vm.write(CONFIG_FILE, text, group="aod")

    def start(self) -> None:
        self._vm.run(["systemctl", "start", AGENT], timeout=300)

    def stop(self) -> None:
        self._vm.run(["systemctl", "stop", AGENT], timeout=180)

    def status(self) -> dict[str, Any]:
        return json.loads(self._vm.run([COMMAND, "status", "--json"]).stdout)

    def wait_until_state(self, state: str) -> None:
        """Until the source of events is in that state."""
        deadline = time.monotonic() + DEADLINE_SEC
        while (source := self.status()["source"])["state"] != state:
            assert time.monotonic() < deadline, source
            time.sleep(0.2)

    def wait_until_calm(self) -> None:
        """Until no incident is open and nothing is collected."""
        deadline = time.monotonic() + DEADLINE_SEC
        while True:
            status = self.status()
            if not status["incidents"]["open"] and not status["collections"]["running"]:
                return
            assert time.monotonic() < deadline, status["incidents"]
            time.sleep(0.5)

    def wait_for_bundles(self) -> list[dict[str, Any]]:
        """Manifests of the bundles made since the last call, as soon as there is one."""
        deadline = time.monotonic() + DEADLINE_SEC
        while not (made := self.new_bundles()):
            assert time.monotonic() < deadline, f"no bundle\n{self.journal()}"
            time.sleep(0.2)
        return made

    def new_bundles(self) -> list[dict[str, Any]]:
        """Manifests of the bundles made since the last call, oldest first."""
        lines = self._vm.run(PRINT_MANIFESTS).stdout.splitlines()
        new = [manifest for manifest in map(json.loads, lines) if manifest["id"] not in self._seen]
        self._seen.update(manifest["id"] for manifest in new)
        return new

    def journal(self) -> str:
        return self._vm.run(["journalctl", "--no-pager", "--boot", "-u", AGENT]).stdout


@pytest.fixture(scope="module")
def agent(vm: VirtualMachine, share: SmbShare, installation: Installation) -> Iterator[Agent]:
    agent = Agent(vm)
    agent.configure()
    agent.start()
    agent.wait_until_state("watching")
    agent.new_bundles()
    yield agent
    agent.stop()


def hang_once(vm: VirtualMachine, share: SmbShare, agent: Agent) -> list[dict[str, Any]]:
    """All bundles that a server makes that stops answering one write, and then goes on."""
    with share.server_hang():
        writer = vm.start(["dd", "if=/dev/zero", f"of={MOUNT_POINT}/hung", "bs=4k", "count=1"])
        made = agent.wait_for_bundles()
    _, complaint = writer.communicate(timeout=DEADLINE_SEC)
    assert writer.returncode == 0, complaint
    agent.wait_until_calm()
    return made + agent.new_bundles()


def normal_work(directory: str, rounds: int = 10) -> str:
    return f"""
    cd {directory}
    for round in $(seq {rounds}); do
        echo x > work; cp work copy; ls -l . >/dev/null; mv copy other; rm other
    done
    """


def test_a_hang_is_one_bundle_that_names_command_share_and_mount_point(
    vm: VirtualMachine, share: SmbShare, agent: Agent
) -> None:
    (bundle,) = hang_once(vm, share, agent)
    assert bundle["anomaly"] == "hanging_commands", bundle["reason"]
    assert bundle["reason"].startswith("SMB2_")
    assert rf" on \\{SERVER}\{PUBLIC_SHARE}: no answer for " in bundle["reason"]
    assert "not confirmed" not in bundle["reason"]
    assert bundle["trigger"]["place"] == {
        "server": SERVER,
        "share": rf"\\{SERVER}\{PUBLIC_SHARE}",
        "mount_points": [MOUNT_POINT],
    }


@pytest.fixture
def second_server(vm: VirtualMachine, share: SmbShare) -> Iterator[str]:
    """The mount point of another connection, to another address of the same smbd."""
    address = f"{SECOND_SERVER}/24 dev {SERVER_END}"
    vm.run(f"ip -n {NAMESPACE} addr add {address}; mkdir -p {SECOND_MOUNT}")
    source = f"//{SECOND_SERVER}/{PUBLIC_SHARE}"
    vm.run(f"mount -t cifs {source} {SECOND_MOUNT} -o guest,{MOUNT_OPTIONS}")
    yield SECOND_MOUNT
    share.unmount(SECOND_MOUNT)
    vm.run(f"ip -n {NAMESPACE} addr del {address}")


def unreachable(address: str) -> Fault:
    """Packets to ``address`` vanish."""
    rule = f"OUTPUT --destination {address} --protocol tcp --dport 445 --jump DROP"
    return Fault(f"iptables --wait --insert {rule}", f"iptables --wait --delete {rule}")


def test_of_two_servers_only_the_sick_one_is_named(
    vm: VirtualMachine, share: SmbShare, agent: Agent, second_server: str
) -> None:
    with share.fault(unreachable(SECOND_SERVER)):
        writer = vm.start(["touch", f"{second_server}/slow"])
        vm.run(normal_work(MOUNT_POINT))
        made = agent.wait_for_bundles()
        vm.run(normal_work(MOUNT_POINT))
    assert writer.wait(timeout=DEADLINE_SEC) == 0
    agent.wait_until_calm()
    (bundle,) = made + agent.new_bundles()
    assert bundle["trigger"]["place"] == {
        "server": SECOND_SERVER,
        "share": rf"\\{SECOND_SERVER}\{PUBLIC_SHARE}",
        "mount_points": [second_server],
    }
    assert bundle["incident"]["cause"] == SECOND_SERVER
    assert SERVER not in bundle["reason"]


def test_a_jump_of_the_wall_clock_is_no_trouble_and_hides_none(
    vm: VirtualMachine, share: SmbShare, agent: Agent
) -> None:
    before = agent.status()
    with wall_clock_restored(vm) as offset_sec:
        for hours in (5, -5):
            set_wall_clock(vm, offset_sec + hours * HOURS)
            vm.run(normal_work(MOUNT_POINT))
        after = agent.status()
        assert after["events"]["commands"] - before["events"]["commands"] > 100
        assert after["incidents"] == before["incidents"], agent.journal()
        assert agent.new_bundles() == []
        (bundle,) = hang_once(vm, share, agent)
        assert bundle["anomaly"] == "hanging_commands"
    assert {c["last_fault"] for c in agent.status()["components"].values()} == {""}


@contextmanager
def wall_clock_restored(vm: VirtualMachine) -> Iterator[float]:
    """What the wall clock is ahead of the monotonic one; so it is again afterwards."""
    offset_sec = float(vm.run(["python3", "-c", WALL_OFFSET]).stdout)
    try:
        yield offset_sec
    finally:
        set_wall_clock(vm, offset_sec)


def set_wall_clock(vm: VirtualMachine, ahead_sec: float) -> None:
    vm.run(["python3", "-c", SET_WALL_CLOCK, str(ahead_sec)])


def test_systemctl_reload_takes_a_good_file_and_refuses_a_bad_one(
    vm: VirtualMachine, agent: Agent
) -> None:
    before = agent.status()
    try:
        agent.configure(CONFIG.replace("stall_sec: 4", "stall_sec: 300"))
        vm.run(["systemctl", "reload", AGENT])
        changed = "configuration loaded anew: guardian.anomalies.hanging_commands"
        assert changed in agent.journal()

        bad = CONFIG.replace("acceptable_count: 3", "acceptable_count: 0")
        agent.configure(bad)
        assert vm.run(["systemctl", "reload", AGENT], check=False).returncode != 0
        line = 1 + bad[: bad.index("acceptable_count: 0")].count("\n")
        place = f"{CONFIG_FILE}:{line}: guardian.anomalies.slow_commands.acceptable_count"
        assert place in agent.journal()
    finally:
        agent.configure()
    vm.run(["systemctl", "reload", AGENT])
    after = agent.status()
    assert after["pid"] == before["pid"]
    assert after["events"]["sources_opened"] == before["events"]["sources_opened"]
    assert vm.run(["systemctl", "is-active", AGENT]).stdout.strip() == "active"


UNLOAD = ["rmmod", "cifs"]


def test_a_detached_agent_lets_the_module_go_and_watches_the_next_one(
    vm: VirtualMachine, share: SmbShare, agent: Agent
) -> None:
    opened = agent.status()["events"]["sources_opened"]
    vm.run([COMMAND, "detach"])
    agent.wait_until_state("detached")
    share.unmount(MOUNT_POINT)
    try:
        # The kernel's thread for the connection holds the module a moment longer.
        vm.wait_until(UNLOAD)
        assert agent.status()["source"]["state"] == "detached"
    finally:
        vm.run(["modprobe", "cifs"])
        share.mount(MOUNT_POINT)
    agent.wait_until_state("watching")
    assert agent.status()["events"]["sources_opened"] == opened + 1
    (bundle,) = hang_once(vm, share, agent)
    assert bundle["anomaly"] == "hanging_commands"
    assert bundle["trigger"]["place"]["server"] == SERVER


def test_an_agent_that_was_there_before_the_module_watches_it(
    vm: VirtualMachine, share: SmbShare, agent: Agent
) -> None:
    agent.stop()
    share.unmount(MOUNT_POINT)
    try:
        vm.wait_until(UNLOAD)
        agent.start()
        agent.wait_until_state("waiting_for_cifs")
    finally:
        vm.run(["modprobe", "cifs"])
        share.mount(MOUNT_POINT)
    agent.wait_until_state("watching")
    before = agent.status()["events"]["commands"]
    vm.run(normal_work(MOUNT_POINT))
    assert agent.status()["events"]["commands"] - before > 50
