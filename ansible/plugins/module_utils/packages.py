"""Which packages of the distribution are there, by its own database."""

from __future__ import annotations

import shutil
from typing import Iterable

from ansible_collections.aod.fleet.plugins.module_utils.commands import run


def missing_packages(names: Iterable[str]) -> list[str]:
    """Those of ``names`` that are not installed, in their order. A "name=version" asks for it."""
    wanted = list(names)
    if not wanted:
        return []
    installed = _by_dpkg() if shutil.which("dpkg-query") else _by_rpm(wanted)
    return [name for name in wanted if name not in installed]


def _by_dpkg() -> set[str]:
    """Each package, and each with its version."""
    listed = run(["dpkg-query", "-W", "-f=${db:Status-Status} ${Package} ${Version}\\n"])
    found = set()
    for line in listed.stdout.splitlines():
        status, name, version = line.split(" ", 2)
        if status == "installed":
            found |= {name, f"{name}={version}"}
    return found


def _by_rpm(names: list[str]) -> set[str]:
    """As they are asked for: rpm itself resolves name-version-release.arch."""
    return {name for name in names if run(["rpm", "-q", "--whatprovides", name]).exit_code == 0}
