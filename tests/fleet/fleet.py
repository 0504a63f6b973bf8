"""A fleet of hosts in containers and the playbooks over it, with what a host looks like before and
after."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.fleet.ansible_releases import current
from tests.fleet.host import FleetHost
from tests.fleet.playbooks import Ansible, PlaybookRun

# Enough for the search for headers: what the agent compiles with is not of interest here.
_HEADERS = """
tree=/lib/modules/$(uname -r)/build
mkdir -p "$tree/include/generated" "$tree/include/linux" "$tree/arch/x86/include/generated"
touch "$tree/include/generated/autoconf.h" "$tree/include/linux/kconfig.h"
"""
# What any log-in, any boot, any package's index and Ansible itself leave behind.
_PASSING = (
    *("/proc", "/sys", "/dev", "/run", "/tmp", "/var/tmp", "/root/.ansible"),
    *("/var/log/journal", "/var/log/wtmp", "/var/log/lastlog", "/var/log/btmp"),
    *("/var/lib/systemd", "/var/lib/apt", "/var/cache"),
    *("/etc/.pwd.lock", "/etc/passwd-", "/etc/group-", "/etc/shadow-", "/etc/gshadow-"),
)
_SNAPSHOT = f"""
find / -xdev \\( -path {" -o -path ".join(_PASSING)} \\) -prune -o -printf '%y %#m %u:%g %p %l\\n' |
    sort
sed 's/^/passwd /' /etc/passwd
sed 's/^/group /' /etc/group
systemctl list-unit-files --no-legend --no-pager | sed 's/^/unit /'
systemctl list-units --no-legend --no-pager --plain --state=active --type=service,socket,timer |
    sed 's/ .*//; s/^/active /' | grep -v 'active user\\|active run-\\|active sshd*@'
"""


@dataclass(frozen=True)
class Report:
    """What ``aod_report_file`` holds: by host, its row."""

    summary: dict[str, int]
    hosts: dict[str, dict[str, Any]]

    def states(self) -> dict[str, str]:
        return {name: row["state"] for name, row in self.hosts.items()}

    def versions(self) -> dict[str, str]:
        return {name: row["version"] for name, row in self.hosts.items()}


class Fleet:
    """``hosts`` are the clients of a direct topology that ships into a directory of each host."""

    def __init__(
        self,
        hosts: list[FleetHost],
        directory: Path,
        releases: Path,
        programs: Path | None = None,
    ) -> None:
        self.hosts = {host.name: host for host in hosts}
        self.report_file = directory / "report.json"
        self._releases = releases
        clients = {host.name: host.variables() for host in hosts}
        self._ansible = Ansible(
            directory, {"aod_clients": clients, "aod_relays": {}}, programs or current()
        )

    def run(
        self, playbook: str, release: str | None, *arguments: str, **variables: Any
    ) -> PlaybookRun:
        """``release`` None: as the playbook chooses."""
        given: dict[str, Any] = {
            "aod_report_file": str(self.report_file),
            "kernel_headers_state": "absent",  # only looked for: there are none of this kernel
            "release_directory": str(self._releases),
            **({} if release is None else {"release_version": release}),
            **variables,
        }
        return self._ansible.run(playbook, *arguments, variables=given)

    def report(self) -> Report:
        """Of the last run."""
        document = json.loads(self.report_file.read_text())
        return Report(document["summary"], {row["host"]: row for row in document["hosts"]})


def have_headers(host: FleetHost) -> None:
    """As if those of the running kernel were installed."""
    host.run(_HEADERS)


def snapshot(host: FleetHost) -> list[str]:
    """Files with owners and modes, users, groups, units and what runs."""
    return host.run(_SNAPSHOT).stdout.splitlines()


def difference(before: list[str], after: list[str]) -> Mapping[str, list[str]]:
    """What came and what went."""
    return {
        "came": sorted(set(after) - set(before)),
        "went": sorted(set(before) - set(after)),
    }
