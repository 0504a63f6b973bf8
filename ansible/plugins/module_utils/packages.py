"""Which packages of the distribution are there, by its own database."""

from __future__ import annotations

import shutil
from fnmatch import fnmatchcase
from typing import Callable, Iterable

from ansible_collections.aod.fleet.plugins.module_utils.commands import run


def missing_packages(names: Iterable[str]) -> list[str]:
    """Those of ``names`` that are not installed, in their order.

    On Debian, "name=6.1.*" asks for a version as well.
    """
    wanted = list(names)
    if not wanted:
        return []
    is_there = _by_dpkg() if shutil.which("dpkg-query") else _by_rpm
    return [name for name in wanted if not is_there(name)]


def _by_dpkg() -> Callable[[str], bool]:
    listed = run(["dpkg-query", "-W", "-f=${db:Status-Status} ${Package} ${Version}\\n"])
    lines = (line.split(" ") for line in listed.stdout.splitlines())
    installed = {line[1]: line[2] for line in lines if line[0] == "installed"}

    def is_there(wanted: str) -> bool:
        name, _, version = wanted.partition("=")
        return name in installed and fnmatchcase(installed[name], version or "*")

    return is_there


def _by_rpm(name: str) -> bool:
    """As it is asked for: rpm itself resolves name-version-release.arch, and what it provides."""
    return run(["rpm", "-q", "--whatprovides", name]).exit_code == 0
