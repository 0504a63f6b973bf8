"""Fixtures of the fleet in virtual machines."""

from __future__ import annotations

from collections.abc import Generator, Iterator

import pytest

from agent import __version__
from tests.fleet.releases import build_release
from tests.fleet_lab.laboratory import FleetLaboratory
from tests.fleet_lab.steps import Fleet
from tests.minio_server import MinioServer
from tests.requirements import skip_or_fail
from tests.vm.image import LabUnavailableError, image_for


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    fleet = getattr(item, "funcargs", {}).get("fleet")
    if report.failed and fleet is not None:
        report.sections.append(("the machines' consoles, last lines", fleet.lab.consoles()))
    return report


@pytest.fixture(scope="module")
def fleet(minio: MinioServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Two clients that ship into the bucket themselves, and their SMB server."""
    try:
        image = image_for("6.1")
    except LabUnavailableError as unavailable:
        skip_or_fail(str(unavailable))
    archives = tmp_path_factory.mktemp("dist")
    build_release(archives, __version__)
    directory = tmp_path_factory.mktemp("fleet")
    with FleetLaboratory(image, minio, directory, "direct", clients=2) as lab:
        yield Fleet(lab, archives, serial=["100%"])
