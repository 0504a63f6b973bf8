"""The roles release and agent, with archives of this checkout, on hosts that boot a systemd."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.fleet.conftest import BootHost
from tests.fleet.host import FleetHost
from tests.fleet.playbooks import Ansible, PlaybookRun
from tests.fleet.releases import BROKEN_ONE, NEW, OLD

#: On a host that has everything already: what gathers, checks, looks and compares.
TASKS_AT_MOST = 6
UNIT = "aod-agent.service"
CONFIG = "/etc/aod/config.yaml"
_PLAYBOOK = """
- hosts: all
  gather_facts: true
  gather_subset: ["!all", "!min", distribution, platform]
  roles:
    - role: aod.fleet.agent
"""
# Where a release, its data or its users could be.
_TRACES = """
find /opt /etc /run/aod* /var/lib/aod* /var/log/aod* \
    ! -name '*-' ! -name .pwd.lock \
    -printf '%y %m %u:%g %p %l\\n' 2>/dev/null | sort || true
cat /etc/passwd /etc/group
systemctl list-units --all --plain --no-legend 'aod*'
"""


class RoleRuns:
    """Runs the role on ``host``."""

    def __init__(self, host: FleetHost, releases: Path, directory: Path) -> None:
        self.host = host
        self._releases = releases
        self._ansible = Ansible(directory, {"aod_clients": {host.name: host.variables()}})
        self._playbook = directory / "agent.yml"
        self._playbook.write_text(_PLAYBOOK)

    def run(self, *options: str, **variables: Any) -> PlaybookRun:
        given = {"release_directory": str(self._releases), "release_version": OLD, **variables}
        return self._ansible.run(self._playbook, *options, variables=given)

    def apply(self, **variables: Any) -> dict[str, int]:
        """The counts of a run that must succeed."""
        run = self.run(**variables)
        assert run.exit_code == 0, run.output
        return run.recap[self.host.name]

    def refuse(self, **variables: Any) -> str:
        """The output of a run that must fail, and change nothing."""
        before = self.traces()
        run = self.run(**variables)
        counts = run.recap[self.host.name]
        assert (counts["failed"], counts["changed"]) == (1, 0), run.output
        assert self.traces() == before
        return " ".join(run.output.split())

    def status(self) -> dict[str, Any]:
        """What the agent tells of itself."""
        command = ["/opt/aod/current/bin/aod-agent", "status", "--json"]
        status: dict[str, Any] = json.loads(self.host.run(command).stdout)
        return status

    def traces(self) -> str:
        return self.host.run(_TRACES).stdout


@pytest.fixture
def role(boot_host: BootHost, release_directory: Path, tmp_path: Path) -> RoleRuns:
    return RoleRuns(boot_host("client"), release_directory, tmp_path)


def test_a_fresh_host_gets_an_agent_and_a_second_run_finds_nothing_to_do(role: RoleRuns) -> None:
    before = role.traces()
    check = role.run("--check", "--diff")
    assert check.exit_code == 0, check.output
    assert check.recap["client"]["changed"] > 0
    assert "+# Settings of the agent." in check.output
    assert role.traces() == before

    role.apply()
    status = role.status()
    assert (status["version"], status["source"]["state"]) == (OLD, "waiting_for_cifs")
    assert role.host.run(f"stat -c '%a %U:%G' {CONFIG}").stdout == "640 root:aod\n"
    assert role.host.run(["systemctl", "is-enabled", UNIT]).stdout == "enabled\n"
    assert "incoming" not in role.host.run(["ls", "/opt/aod"]).stdout

    again = role.apply()
    assert (again["changed"], role.status()["pid"]) == (0, status["pid"])
    assert again["ok"] <= TASKS_AT_MOST


def test_a_configuration_is_merged_checked_and_reloaded(role: RoleRuns) -> None:
    role.apply()
    pid = role.status()["pid"]
    shipped = role.host.run(["cat", CONFIG]).stdout
    changed = {"watch_interval_sec": 20, "watcher": {"actions": ["stats"]}}
    assert role.apply(agent_config=changed)["changed"] == 1
    assert role.status()["pid"] == pid
    merged = yaml.safe_load(role.host.run(["cat", CONFIG]).stdout)
    expected = yaml.safe_load(shipped)
    expected["watch_interval_sec"], expected["watcher"]["actions"] = 20, ["stats"]
    assert merged == expected

    output = role.refuse(agent_config={"watch_interval_sec": "soon"})
    assert "nothing was changed" in output
    assert f"{CONFIG}:" in output
    assert "watch_interval_sec" in output
    assert role.apply()["changed"] == 1
    assert role.host.run(["cat", CONFIG]).stdout == shipped


def test_up_down_and_a_broken_release_that_rolls_itself_back(role: RoleRuns) -> None:
    role.apply(release_version=NEW)
    assert role.status()["version"] == NEW
    role.apply(release_version=OLD)
    assert role.status()["version"] == OLD
    assert role.host.run("readlink /opt/aod/current /opt/aod/previous").stdout.split() == [OLD, NEW]

    run = role.run(release_version=BROKEN_ONE)
    print(run.output)
    assert run.recap["client"]["failed"] == 1
    assert f"{BROKEN_ONE} was rolled back ({OLD} runs again)" in run.output
    assert "broken on purpose" in run.output
    assert role.status()["version"] == OLD
    assert role.host.run("readlink /opt/aod/current /opt/aod/previous").stdout.split() == [OLD, NEW]
    # What was installed in vain is beyond the two that may stay, and goes with the next run.
    role.apply()
    assert role.host.run(["ls", "/opt/aod"]).stdout.split() == [OLD, NEW, "current", "previous"]
    assert role.apply()["changed"] == 0


def test_an_uninstall_keeps_data_unless_asked_and_then_leaves_nothing(role: RoleRuns) -> None:
    before = role.traces()
    role.apply()
    role.apply(agent_state="absent")
    left = role.traces()
    assert "/var/log/aod/batches" in left
    assert "aod:x:" in left  # the owner of what was kept
    for gone in ("/opt/aod", "/etc/aod", UNIT, "aod-fleet"):
        assert gone not in left
    assert role.apply(agent_state="absent")["changed"] == 0

    role.apply(agent_state="absent", agent_remove_data=True)
    assert role.traces() == before
    assert role.apply(agent_state="absent", agent_remove_data=True)["changed"] == 0


def test_what_is_in_the_way_is_named_before_anything_changes(
    role: RoleRuns, tmp_path: Path
) -> None:
    assert 'such as "0.1.0"' in role.refuse(release_version="latest")
    assert "`make dist` builds it" in role.refuse(release_directory=str(tmp_path))
    assert "MB are needed" in role.refuse(release_disk_mb=10**9)
    assert "release.tar.gz: FAILED" in role.run(release_checksum="0" * 64).output
    assert role.host.run(["ls", "-A", "/opt/aod"]).stdout == ""
