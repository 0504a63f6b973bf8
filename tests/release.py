"""This checkout's release, built once per run for the system's own Python, and its installer."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SYSTEM_PYTHON = Path("/usr/bin/python3")
TIMEOUT_SEC = 240


@dataclass(frozen=True)
class Release:
    """``archive`` as built, and ``directory`` where it is unpacked."""

    archive: Path
    directory: Path

    def command(self, prefix: Path, python: Path = SYSTEM_PYTHON) -> list[str]:
        """How the installer is started."""
        return [str(python), str(self.directory / "install.py"), "--json", "--prefix", str(prefix)]

    def install(
        self, prefix: Path, within: Sequence[str] = (), umask: int = -1
    ) -> subprocess.CompletedProcess[str]:
        """Run the installer to its end; ``within`` is a command that runs it."""
        return subprocess.run(
            [*within, *self.command(prefix)],
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SEC,
            check=False,
            umask=umask,
        )


def state(done: subprocess.CompletedProcess[str]) -> str:
    """The installer's answer; it has to have one."""
    assert done.returncode == 0, done.stderr
    return str(json.loads(done.stdout)["state"])


def refusal(done: subprocess.CompletedProcess[str]) -> str:
    """The installer's one line of reason; it has to have refused."""
    assert done.returncode == 2, done.stdout + done.stderr
    assert not done.stdout
    (line,) = done.stderr.splitlines()
    return line


def tree(directory: Path) -> dict[str, tuple[int, int, int]]:
    """Mode, size and time of change of all that is in there."""
    found = {}
    for path in directory.rglob("*"):
        stat = path.lstat()
        found[str(path.relative_to(directory))] = (stat.st_mode, stat.st_size, stat.st_mtime_ns)
    return found
