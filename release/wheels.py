"""The wheels of a release: pinned by hash, fetched once, looked at again before each use."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SUPPORTED_PYTHONS = ("3.10", "3.11", "3.12", "3.13")
#: glibc 2.28 is EL 8's; pip takes older tags only when they are named too.
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
PIP_TIMEOUT_SEC = 900

_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})\b")


class ReleaseError(Exception):
    """A release cannot be made; the message says why."""


def cache_directory() -> Path:
    """``$AOD_CACHE``, else ~/.cache/aod-fleet; made if it is not there."""
    directory = Path(os.environ.get("AOD_CACHE") or "~/.cache/aod-fleet").expanduser()
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    return directory


def locked_wheels(lock: Path, python: str) -> list[Path]:
    """What ``lock`` names, as wheels for ``python``; fetched unless the cache has them.

    Raises ReleaseError when a wheel cannot be had, or is not the one that the lock means.
    """
    key = hashlib.sha256(lock.read_bytes()).hexdigest()[:16]
    directory = cache_directory() / f"wheels-{key}-cp{python.replace('.', '')}"
    with exclusive_lock(directory.with_suffix(".lock")):
        if not directory.exists():
            partial = directory.with_suffix(".partial")
            shutil.rmtree(partial, ignore_errors=True)
            download(python, partial, "--no-deps", "--require-hashes", "--requirement", str(lock))
            partial.rename(directory)
    wheels = sorted(directory.iterdir())
    pinned = set(_HASH.findall(lock.read_text()))
    for wheel in wheels:
        if sha256(wheel) not in pinned:
            raise ReleaseError(f"{wheel} is not what {lock.name} pins: remove {directory}")
    return wheels


def download(python: str, directory: Path, *arguments: str) -> None:
    """Wheels for that Python on every supported system, by pip. Raises ReleaseError."""
    platforms = (f"--platform={platform}" for platform in PLATFORMS)
    target = ["--only-binary=:all:", "--implementation=cp", f"--python-version={python}"]
    destination = ["--dest", str(directory)]
    run_pip(
        [sys.executable, "-m", "pip"], "download", *target, *platforms, *destination, *arguments
    )


def run_pip(pip: list[str], *arguments: str, environment: dict[str, str] | None = None) -> None:
    """``pip`` is how to start it. Raises ReleaseError with what it said."""
    done = subprocess.run(
        [*pip, *arguments, "--quiet", "--disable-pip-version-check"],
        env={**os.environ, **(environment or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PIP_TIMEOUT_SEC,
        check=False,
        umask=0o022,  # of whoever builds would be seen in the wheel
    )
    if done.returncode:
        raise ReleaseError(f"pip {arguments[0]} failed with {done.returncode}:\n{done.stderr}")


def sha256(path: Path) -> str:
    """In hexadecimal."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def exclusive_lock(path: Path) -> Iterator[None]:
    """Held by one process at a time; the kernel releases it when that process dies."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
