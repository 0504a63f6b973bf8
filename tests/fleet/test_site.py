"""The life of a fleet in the direct topology: rolled out, upgraded, rolled back and removed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fleet.ansible_releases import AnsibleUnavailableError, oldest
from tests.fleet.conftest import BootHost
from tests.fleet.fleet import Fleet, difference, have_headers, snapshot
from tests.fleet.playbooks import COLLECTION, TASKS_OF_A_CONVERGED_HOST, Ansible
from tests.fleet.releases import BROKEN_ONE, NEW, OLD
from tests.requirements import skip_or_fail

NAMES = ("web-1", "web-2")

pytestmark = pytest.mark.timeout(1500)


@pytest.fixture
def new_fleet(boot_host: BootHost, release_directory: Path, tmp_path: Path) -> Callable[..., Fleet]:
    """Call it with names of hosts."""

    def boot(*names: str) -> Fleet:
        hosts = [boot_host(name) for name in names]
        for host in hosts:
            have_headers(host)
        return Fleet(hosts, tmp_path, release_directory)

    return boot


NewFleet = Callable[..., Fleet]


def test_fresh_hosts_are_healthy_and_are_left_as_they_were(new_fleet: NewFleet) -> None:
    fleet = new_fleet(*NAMES)
    before = {name: snapshot(host) for name, host in fleet.hosts.items()}

    tried = fleet.run("site.yml", OLD, "--check", "--diff")
    assert tried.exit_code == 0, tried.output
    for name, host in fleet.hosts.items():
        assert difference(before[name], snapshot(host)) == {"came": [], "went": []}

    done = fleet.run("site.yml", OLD)
    assert done.exit_code == 0, done.output
    report = fleet.report()
    assert report.summary == {"healthy": 2}
    for row in report.hosts.values():
        assert (row["version"], row["headers"], row["probes"]) == (OLD, "exact", "waiting")
        assert (row["pending"], row["faults"]) == (0, [])
    assert "2 healthy\n" in done.output
    assert any(line.split()[:3] == ["web-2", "healthy", OLD] for line in done.output.splitlines())

    again = fleet.run("site.yml", OLD)
    assert again.exit_code == 0, again.output
    assert set(again.changed().values()) == {0}, again.output
    for name in NAMES:
        assert again.recap[name]["ok"] <= TASKS_OF_A_CONVERGED_HOST

    refused = fleet.run("uninstall.yml", OLD)
    assert refused.exit_code == 2
    assert "aod_uninstall=true" in refused.output
    assert set(fleet.report().states().values()) == {"healthy"}

    removed = fleet.run("uninstall.yml", OLD, aod_uninstall=True, aod_remove_data=True)
    assert removed.exit_code == 0, removed.output
    assert fleet.report().summary == {"absent": 2}
    for name, host in fleet.hosts.items():
        assert difference(before[name], snapshot(host)) == {"came": [], "went": []}


def test_upgrade_stops_at_a_broken_release_and_goes_back(new_fleet: NewFleet) -> None:
    fleet = new_fleet(*NAMES)
    canary, other = NAMES
    assert fleet.run("site.yml", OLD).exit_code == 0

    unnamed = fleet.run("upgrade.yml", None)
    assert unnamed.exit_code == 2
    assert "release_version" in unnamed.output

    upgraded = fleet.run("upgrade.yml", NEW)
    assert upgraded.exit_code == 0, upgraded.output
    assert set(fleet.report().versions().values()) == {NEW}

    broken = fleet.run("upgrade.yml", BROKEN_ONE)
    assert broken.exit_code == 2, broken.output
    report = fleet.report()
    assert report.states() == {canary: "failed", other: "not begun"}
    assert set(report.versions().values()) == {NEW}
    assert "broken on purpose" in broken.output
    assert BROKEN_ONE not in fleet.hosts[other].run(["ls", "/opt/aod"]).stdout
    assert fleet.run("status.yml", None).exit_code == 0
    assert fleet.report().summary == {"healthy": 2}

    back = fleet.run("rollback.yml", None, release_directory="/nowhere")
    assert back.exit_code == 0, back.output
    assert fleet.report().summary == {"healthy": 2}
    assert set(fleet.report().versions().values()) == {OLD}

    assert fleet.run("site.yml", NEW).exit_code == 0
    downgraded = fleet.run("site.yml", OLD)
    assert downgraded.exit_code == 0, downgraded.output
    assert set(fleet.report().versions().values()) == {OLD}
    assert fleet.report().summary == {"healthy": 2}


def test_a_host_without_room_fails_alone_and_says_so(new_fleet: NewFleet) -> None:
    fleet = new_fleet(*NAMES, "web-3")
    sick, gone = fleet.hosts["web-2"], fleet.hosts["web-3"]
    sick.run("mkdir /opt/aod && mount -t tmpfs -o size=32m tmpfs /opt/aod")
    gone.stop()

    stopped = fleet.run("site.yml", OLD)
    assert stopped.exit_code == 2, stopped.output
    report = fleet.report()
    assert report.states() == {"web-1": "healthy", "web-2": "failed", "web-3": "unreachable"}
    (fault,) = report.hosts["web-2"]["faults"]
    assert "MB are needed to install a release" in fault["message"]
    assert "1 healthy, 1 unreachable, 1 failed" in stopped.output


def test_the_oldest_promised_ansible_rolls_out(
    boot_host: BootHost, release_directory: Path, tmp_path: Path
) -> None:
    try:
        programs = oldest()
    except AnsibleUnavailableError as unavailable:
        skip_or_fail(str(unavailable))
    host = boot_host("web-1")
    have_headers(host)
    fleet = Fleet([host], tmp_path, release_directory, programs)
    for _ in range(2):
        done = fleet.run("site.yml", OLD)
        assert done.exit_code == 0, done.output
        assert fleet.report().summary == {"healthy": 1}
    assert done.changed()["web-1"] == 0


@pytest.mark.parametrize(
    ("percentage", "state"), [(5, "not begun"), (100, "healthy")], ids=["stops", "goes on"]
)
def test_the_threshold_decides_whether_the_next_batch_begins(
    new_fleet: NewFleet, percentage: int, state: str
) -> None:
    fleet = new_fleet("web-1", "web-2")
    fleet.hosts["web-1"].stop()
    done = fleet.run("site.yml", OLD, aod_max_fail_percentage=percentage)
    assert done.exit_code == 2, done.output
    assert fleet.report().states() == {"web-1": "unreachable", "web-2": state}


def test_relays_stay_where_they_are_when_the_clients_do(
    boot_host: BootHost, tmp_path: Path
) -> None:
    relay, client = boot_host("relay-1"), boot_host("web-1")
    relay.run("mkdir /opt/aod && ln -s 0.2.0 /opt/aod/current && ln -s 0.1.0 /opt/aod/previous")
    client.stop()
    ansible = Ansible(
        tmp_path,
        {
            "aod_relays": {"relay-1": relay.variables()},
            "aod_clients": {"web-1": client.variables()},
        },
    )
    report = tmp_path / "report.json"

    done = ansible.run("rollback.yml", variables={"aod_report_file": str(report)})
    assert done.exit_code == 2, done.output
    states = {row["host"]: row["state"] for row in json.loads(report.read_text())["hosts"]}
    assert states == {"relay-1": "not begun", "web-1": "unreachable"}

    named = ansible.run(
        "rollback.yml", "--limit", "aod_relays", variables={"release_version": "0.2.0"}
    )
    assert named.exit_code == 2, named.output
    assert "leave it out" in named.output


_LOST = """
- hosts: all
  gather_facts: false
  tasks:
    - ansible.builtin.set_fact: {aod_outcome: done}
    - ansible.builtin.import_tasks: "{{ reach }}"
- hosts: localhost
  gather_facts: false
  tasks:
    - ansible.builtin.debug:
        msg: "{{ ['web-1'] | aod.fleet.outcomes(hostvars) }}"
"""


def test_a_relay_that_is_lost_as_a_client_does_not_count_as_done(
    boot_host: BootHost, tmp_path: Path
) -> None:
    host = boot_host("web-1")
    host.stop()
    playbook = tmp_path / "lost.yml"
    playbook.write_text(_LOST.replace("{{ reach }}", str(COLLECTION / "playbooks/tasks/reach.yml")))
    done = Ansible(tmp_path, {"all": {"web-1": host.variables()}}).run(playbook)
    assert "the host was not reached, or lost on the way" in done.output


# A release that tells nothing, and no unit of a shipper.
_STRANGE = """
mkdir -p /opt/aod/9.0/bin && ln -s 9.0 /opt/aod/current && cd /opt/aod/9.0/bin
printf '#!/bin/sh\\necho %s\\n' "'{\\"kind\\": \\"exact\\"}'" > python
printf '#!/bin/sh\\necho "{}"\\n' > aod-agent
chmod +x *
touch /etc/systemd/system/aod-agent.service
"""


def test_a_part_that_is_missing_or_answers_strangely_is_a_fault_and_no_traceback(
    boot_host: BootHost, tmp_path: Path
) -> None:
    host = boot_host("web-1")
    host.run(_STRANGE)
    fleet = Fleet([host], tmp_path, tmp_path)
    done = fleet.run("status.yml", None)
    assert done.exit_code == 0, done.output
    row = fleet.report().hosts["web-1"]
    assert (row["state"], row["headers"]) == ("degraded", "exact")
    said = {fault["part"]: fault["message"] for fault in row["faults"]}
    assert said["agent"].startswith("answers in a form that this collection does not know")
    assert said["shipper"] == "is not installed"
