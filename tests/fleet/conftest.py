"""Fixtures of the fleet: hosts that boot in a second, and the playbooks to run against them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import pytest

from release.wheels import ReleaseError
from tests.cache import exclusive_lock
from tests.fleet.host import FleetHost
from tests.fleet.host_image import HostImage, HostsUnavailableError, host_image
from tests.fleet.releases import build_releases
from tests.requirements import skip_or_fail


class BootHost(Protocol):
    def __call__(self, name: str) -> FleetHost: ...


@pytest.fixture(scope="session")
def fleet_image() -> HostImage:
    try:
        return host_image()
    except HostsUnavailableError as unavailable:
        skip_or_fail(str(unavailable))


@pytest.fixture
def boot_host(fleet_image: HostImage) -> Iterator[BootHost]:
    """Call it with a name for a fresh host, which ends with the test."""
    with ExitStack() as hosts:
        yield lambda name: hosts.enter_context(FleetHost(fleet_image, name))


@pytest.fixture(scope="session")
def release_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Releases of this checkout, as `make dist` makes them, built once for all workers."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent
    directory, partial = root / "releases", root / "releases.partial"
    with exclusive_lock(root / "releases.lock"):
        if not directory.exists():
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            try:
                build_releases(partial)
            except ReleaseError as error:
                skip_or_fail(f"no release: {error}")
            partial.rename(directory)
    return directory
