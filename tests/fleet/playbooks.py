"""Runs the collection's playbooks the way an engineer does: ansible-playbook with an inventory."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).parents[2]
COLLECTION = PROJECT / "ansible"
TIMEOUT_S = 1200
#: At most so many are ok when nothing is to be done.
TASKS_OF_A_CONVERGED_HOST = 30
_RECAP = re.compile(r"^(\S+)\s+: ((?:\w+=\d+\s*)+)$", re.M)


@dataclass(frozen=True)
class PlaybookRun:
    """How it went: ``recap`` by host, with ok, changed, unreachable, failed, skipped, rescued."""

    exit_code: int
    output: str
    recap: dict[str, dict[str, int]]

    def changed(self) -> dict[str, int]:
        return {host: counts["changed"] for host, counts in self.recap.items()}


class Ansible:
    """Runs playbooks against ``groups``: by group's name, by host's name, its variables.

    ``directory`` holds the inventory, the collection's path and Ansible's own files; ``programs``
    are those of a release of Ansible. Facts are not injected as variables: a role that relies on
    it fails.
    """

    def __init__(
        self,
        directory: Path,
        groups: Mapping[str, Mapping[str, Mapping[str, object]]],
        programs: Path = Path(sys.executable).parent,
    ) -> None:
        self._directory = directory
        self._programs = programs
        collections = directory / "collections/ansible_collections/aod"
        collections.mkdir(parents=True, exist_ok=True)
        if not (collections / "fleet").exists():
            (collections / "fleet").symlink_to(COLLECTION)
        self._inventory = directory / "inventory.json"
        self._inventory.write_text(
            json.dumps({group: {"hosts": dict(hosts)} for group, hosts in groups.items()})
        )

    def run(
        self,
        playbook: str | Path,
        *arguments: str,
        variables: Mapping[str, Any] | None = None,
        timeout: float = TIMEOUT_S,
    ) -> PlaybookRun:
        """``playbook``: a name of the collection's (site.yml), or a path."""
        path = playbook if isinstance(playbook, Path) else COLLECTION / "playbooks" / playbook
        given = self._directory / "variables.json"
        given.write_text(json.dumps(dict(variables or {})))
        done = subprocess.run(
            [
                *(str(self._programs / "ansible-playbook"), "-i", str(self._inventory)),
                *("-e", f"@{given}", *arguments, str(path)),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
            env=self._environment(),
        )
        return PlaybookRun(done.returncode, done.stdout, dict(_recap(done.stdout)))

    def _environment(self) -> dict[str, str]:
        settings = {
            "ANSIBLE_COLLECTIONS_PATH": self._directory / "collections",
            "ANSIBLE_DEPRECATION_WARNINGS": "True",
            "ANSIBLE_HOME": self._directory / "home",
            "ANSIBLE_INJECT_FACT_VARS": "False",
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_PIPELINING": "True",
            "ANSIBLE_RETRY_FILES_ENABLED": "False",
        }
        ours = {name: str(value) for name, value in settings.items()}
        path = f"{self._programs}:{os.environ.get('PATH', os.defpath)}"
        return {**os.environ, **ours, "PATH": path, "LC_ALL": "C.UTF-8"}


def _recap(output: str) -> Iterable[tuple[str, dict[str, int]]]:
    for host, counts in _RECAP.findall(output):
        pairs = (pair.split("=") for pair in counts.split())
        yield host, {name: int(count) for name, count in pairs}
