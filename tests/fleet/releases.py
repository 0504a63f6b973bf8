"""Archives of this checkout as it is, under other versions, and broken on purpose."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from agent import __version__
from release.build import BUILD_FILES, PACKAGES, PROJECT, build

SYSTEM_PYTHON = "/usr/bin/python3"
#: This checkout's, a newer one, and one whose agent never runs.
OLD, NEW, BROKEN_ONE = __version__, "999.1.0", "999.2.0"
#: An agent that is installed, and whose configuration can be checked, but that never runs.
BROKEN = {
    "agent/controller.py": """

def _break(*_: object) -> int:
    raise RuntimeError("broken on purpose")


Controller.start = _break
"""
}


def build_releases(output: Path) -> None:
    """`OLD`, `NEW` and `BROKEN_ONE`. Raises ReleaseError."""
    for version in (OLD, NEW):
        build_release(output, version)
    build_release(output, BROKEN_ONE, BROKEN)


def build_release(output: Path, version: str, appended: Mapping[str, str] | None = None) -> Path:
    """The archive of ``version``, with these texts at the end of these files.

    For the system's Python alone, as the hosts of the tests have it. Raises ReleaseError.
    """
    tree = output / f"source-{version}"
    ignored = shutil.ignore_patterns("__pycache__")
    for package in (*PACKAGES, "config", "release"):
        shutil.copytree(PROJECT / package, tree / package, ignore=ignored)
    for name in BUILD_FILES:
        shutil.copy(PROJECT / name, tree)
    for name in ("pyproject.toml", "agent/__init__.py"):
        file = tree / name
        file.write_text(file.read_text().replace(f'"{__version__}"', f'"{version}"'))
    for name, text in (appended or {}).items():
        with (tree / name).open("a") as file:
            file.write(text)
    archive = build(tree, output, [_system_version()])
    shutil.rmtree(tree)
    return archive


def _system_version() -> str:
    script = "import sys; print('%d.%d' % sys.version_info[:2])"
    command = [SYSTEM_PYTHON, "-c", script]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
