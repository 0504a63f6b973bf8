"""What happens to a fleet, step by step; each leaves it as the next one expects it.

A step raises AssertionError, or what the machines raise, when the fleet is not as it should be.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent import __version__
from tests.fleet.playbooks import TASKS_OF_A_CONVERGED_HOST, PlaybookRun
from tests.fleet.releases import BROKEN, BROKEN_ONE, NEW, build_release
from tests.fleet_lab.host_state import differences, state_of
from tests.fleet_lab.laboratory import MOUNT_POINT, FleetLaboratory
from tests.fleet_lab.record import Step
from tests.vm.machine import VirtualMachine
from tests.vm.service import COMMAND

DELAY_MS = 2000
BUNDLE_TIMEOUT_S = 600
WATCHING_TIMEOUT_S = 300

CANARY_FIRST: list[Any] = [1, "100%"]


@dataclass
class Fleet:
    """A laboratory, where its release archives are, and what its hosts were at first.

    ``serial`` is how many hosts at once, as in the playbooks.
    """

    lab: FleetLaboratory
    archives: Path
    serial: list[Any]
    version: str = __version__
    at_first: dict[str, frozenset[str]] = field(default_factory=dict)

    def play(self, playbook: str, **variables: Any) -> PlaybookRun:
        given = {"release_directory": str(self.archives), "aod_serial": self.serial, **variables}
        return self.lab.ansible().run(playbook, variables=given, timeout=3600)

    def installed(self, version: str, playbook: str = "site.yml") -> PlaybookRun:
        run = self.play(playbook, release_version=version)
        assert run.exit_code == 0, run.output
        return run


def install(fleet: Fleet, step: Step) -> None:
    """site.yml on fresh hosts: every agent watches its mount."""
    run = fleet.installed(fleet.version)
    wait_until_watching(fleet, fleet.version)
    step.found(version=fleet.version, tasks={host: r["ok"] for host, r in run.recap.items()})


def evidence(fleet: Fleet, step: Step) -> None:
    """The server gets slow: a bundle of each client comes into the bucket."""
    known = fleet.lab.bundles()
    with fleet.lab.slow_server(DELAY_MS):
        fleet.lab.on_each_client(lambda name, vm: write_something(vm, name))
    fleet.lab.wait_for_bundles("slow_commands", known, BUNDLE_TIMEOUT_S)
    step.found(bundles={name: len(keys) for name, keys in fleet.lab.bundles().items()})


def again(fleet: Fleet, step: Step) -> None:
    """site.yml once more changes nothing, in few tasks."""
    run = fleet.installed(fleet.version)
    assert not any(run.changed().values()), run.output
    tasks = {host: counts["ok"] for host, counts in run.recap.items()}
    assert max(tasks.values()) <= TASKS_OF_A_CONVERGED_HOST, run.output
    step.found(changed=run.changed(), tasks=tasks)


def upgrade(fleet: Fleet, step: Step) -> None:
    """upgrade.yml to a newer version."""
    build_release(fleet.archives, NEW)
    fleet.installed(NEW, "upgrade.yml")
    wait_until_watching(fleet, NEW)
    step.found(version=NEW)


def broken(fleet: Fleet, step: Step) -> None:
    """A release whose agent does not run: it fails the canary, which goes back by itself."""
    build_release(fleet.archives, BROKEN_ONE, BROKEN)
    run = fleet.play("upgrade.yml", release_version=BROKEN_ONE, agent_health_timeout_sec=60)
    assert run.exit_code != 0, run.output
    canary, *others = fleet.lab.clients
    assert run.recap[canary]["failed"] == 1, run.output
    assert "broken on purpose" in run.output, run.output
    for name in others:
        fleet.lab.clients[name].run(["test", "!", "-e", f"/opt/aod/{BROKEN_ONE}"])
    wait_until_watching(fleet, NEW)
    step.found(failed=[canary], spared=others, version=NEW)


def rollback(fleet: Fleet, step: Step) -> None:
    """rollback.yml to the version before."""
    run = fleet.play("rollback.yml")
    assert run.exit_code == 0, run.output
    wait_until_watching(fleet, fleet.version)
    step.found(version=fleet.version)


def uninstall(fleet: Fleet, step: Step) -> None:
    """uninstall.yml keeps the data; told to, it leaves each host as it was."""
    run = fleet.play("uninstall.yml", aod_uninstall=True)
    assert run.exit_code == 0, run.output
    fleet.lab.on_each_client(
        lambda name, vm: vm.run("find /var/log/aod/batches -type f | grep -q .")
    )
    run = fleet.play("uninstall.yml", aod_uninstall=True, aod_remove_data=True)
    assert run.exit_code == 0, run.output
    now = states(fleet)
    left = {name: differences(fleet.at_first[name], state) for name, state in now.items()}
    assert not any(left.values()), json.dumps(left, indent=2)
    step.found(compared={name: len(state) for name, state in now.items()})


StepFunction = Callable[[Fleet, Step], None]
STEPS: dict[str, StepFunction] = {
    step.__name__: step for step in (install, evidence, again, upgrade, broken, rollback, uninstall)
}


def states(fleet: Fleet) -> dict[str, frozenset[str]]:
    """Of each host that the playbooks touch."""
    return fleet.lab.on_each_host(lambda name, vm: state_of(vm))


def wait_until_watching(fleet: Fleet, version: str) -> None:
    """Until the agent of each client is that version, and watches with its kernel's own headers."""
    wanted = {"version": version, "state": "watching", "headers": "exact"}

    def wait(name: str, vm: VirtualMachine) -> None:
        deadline = time.monotonic() + WATCHING_TIMEOUT_S
        while (seen := agent_of(vm)) != wanted:
            assert time.monotonic() < deadline, f"{name} is {seen}, not {wanted}"
            time.sleep(0.5)

    fleet.lab.on_each_client(wait)


def agent_of(vm: VirtualMachine) -> dict[str, str]:
    """What the running agent says of itself, or why there is no answer."""
    asked = vm.run([COMMAND, "status", "--json"], check=False)
    if asked.returncode:
        return {"error": asked.stderr}
    status = json.loads(asked.stdout)
    source = status["source"]
    kind = source.get("headers", {}).get("kind", "")
    return {"version": status["version"], "state": source["state"], "headers": kind}


def write_something(vm: VirtualMachine, name: str) -> None:
    """A handful of commands to the SMB server."""
    target = f"of={MOUNT_POINT}/{name}"
    vm.run(["dd", "if=/dev/zero", target, "bs=4k", "count=4", "oflag=direct"], timeout=300)
