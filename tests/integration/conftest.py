"""Fixtures of the tests that need real servers."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from release.build import PROJECT, build
from release.wheels import ReleaseError
from tests.relay_server import RelayServer, why_not
from tests.release import SYSTEM_PYTHON, Release
from tests.requirements import skip_or_fail


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
    place = tmp_path_factory.mktemp("release")
    try:
        archive = build(PROJECT, place, [system_python])
    except ReleaseError as error:
        skip_or_fail(f"no release: {error}")
    subprocess.run(["tar", "-C", place, "-xf", archive], check=True)
    return Release(archive, place / archive.name.removesuffix(".tar.gz"))
