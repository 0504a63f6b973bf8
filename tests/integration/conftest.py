"""Fixtures of the tests that need real servers."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from release.build import PROJECT, build
from release.wheels import ReleaseError
from tests.cache import exclusive_lock
from tests.relay_server import RelayServer, why_not
from tests.release import SYSTEM_PYTHON, Release, state
from tests.requirements import skip_or_fail

#: As on Debian without python3-venv: nothing in ensurepip.
BARE_HOST = """
mount -t tmpfs none "$(dirname "$(/usr/bin/python3 -c 'import ensurepip as e; print(e.__file__)')")"
exec "$@"
"""


@pytest.fixture(scope="session")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RelayServer]:
    """A central host with sshd and aod-relay; each test lets in hosts of its own."""
    if reason := why_not():
        skip_or_fail(f"no relay: {reason}")
    with RelayServer(tmp_path_factory.mktemp("relay")) as server:
        yield server


@pytest.fixture(scope="session")
def system_python() -> str:
    """The version of the system's Python, such as 3.11."""
    script = "import sys; print('%d.%d' % sys.version_info[:2])"
    command = [SYSTEM_PYTHON, "-c", script]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture(scope="session")
def release(system_python: str, tmp_path_factory: pytest.TempPathFactory) -> Release:
    """This checkout's archive, for the system's Python only, and unpacked."""
    with made_once(tmp_path_factory, "release") as (place, is_made):
        if not is_made:
            try:
                archive = build(PROJECT, place, [system_python])
            except ReleaseError as error:
                skip_or_fail(f"no release: {error}")
            subprocess.run(["tar", "-C", place, "-xf", archive], check=True)
        (archive,) = place.glob("*.tar.gz")
    return Release(archive, place / archive.name.removesuffix(".tar.gz"))


@pytest.fixture(scope="session")
def installed(release: Release, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prefix with the release in it, installed with neither network nor ensurepip; only to be
    looked at."""
    if os.geteuid():
        skip_or_fail("a host without a network needs root")
    with made_once(tmp_path_factory, "installed") as (place, is_made):
        if not is_made:
            bare_host = ["unshare", "--net", "--mount", "sh", "-ec", BARE_HOST, "sh"]
            done = release.install(place / "opt/aod", within=bare_host, umask=0o077)
            assert state(done) == "installed"
    return place / "opt/aod"


@contextmanager
def made_once(factory: pytest.TempPathFactory, name: str) -> Iterator[tuple[Path, bool]]:
    """A directory that all workers of pytest-xdist share, and whether it has been filled; who
    fills it does so while the others wait."""
    own = factory.getbasetemp()
    place = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / name
    made = place.with_suffix(".made")
    with exclusive_lock(place.with_suffix(".lock")):
        place.mkdir(exist_ok=True)
        yield place, made.exists()
        made.touch()
