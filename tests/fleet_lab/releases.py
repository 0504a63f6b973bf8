"""Release archives of this checkout, also with other version numbers, and a broken one."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import release.build
from tests.vm.install import GUEST_PYTHON

PROJECT = Path(__file__).parents[2]

_VERSION = re.compile(r'(?m)^version = "(.*)"$')
_NOT_SOURCE = shutil.ignore_patterns(".*", "build", "dist", "docs", "tests", "*.egg-info")
_BROKEN = 'raise SystemExit("this release is broken on purpose")\n'


def current_version() -> str:
    found = _VERSION.search((PROJECT / "pyproject.toml").read_text())
    assert found
    return found[1]


def build(version: str, directory: Path, *, broken: bool = False) -> None:
    """Put the archive of that version, and its checksum, into ``directory``.

    A broken one installs, and its agent ends when it is started.
    """
    source = directory / f"source-{version}"
    shutil.copytree(PROJECT, source, ignore=_NOT_SOURCE)
    project = source / "pyproject.toml"
    project.write_text(_VERSION.sub(f'version = "{version}"', project.read_text()))
    if broken:
        (source / "agent/controller.py").write_text(_BROKEN)
    release.build.build(source, directory, [GUEST_PYTHON])
    shutil.rmtree(source)
