"""Fixtures of the VM lab. AOD_VM_KERNEL chooses the guest's kernel series."""

import os
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.requirements import skip_or_fail
from tests.vm.image import LabUnavailableError, image_for
from tests.vm.install import Installation, install
from tests.vm.machine import VirtualMachine
from tests.vm.smb_share import SmbShare

MOUNT_POINT = "/mnt/share"

#: Seconds for one test and the fixtures that it is the first to need, the image included.
TIMEOUT_S = 1800


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker("vm")
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(TIMEOUT_S))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    vm = getattr(item, "funcargs", {}).get("vm")
    if report.failed and vm is not None:
        report.sections.append(("the guest's console, last lines", vm.console_tail()))
    return report


@pytest.fixture(scope="session")
def vm() -> Iterator[VirtualMachine]:
    """One booted guest for all tests: leave it as you found it."""
    try:
        image = image_for(os.environ.get("AOD_VM_KERNEL", "6.1"))
    except LabUnavailableError as unavailable:
        skip_or_fail(str(unavailable))
    with VirtualMachine(image) as machine:
        yield machine


@pytest.fixture(scope="session")
def share(vm: VirtualMachine) -> SmbShare:
    """The server, its public share mounted on MOUNT_POINT in the guest."""
    server = SmbShare(vm)
    server.set_up()
    server.mount(MOUNT_POINT)
    return server


@pytest.fixture(scope="session")
def installation(vm: VirtualMachine) -> Installation:
    """This checkout, installed in the guest with its units enabled and not started."""
    return install(vm)
