"""Fixtures of every test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.minio_server import MinioServer, MinioUnavailableError, find_minio
from tests.requirements import skip_or_fail

# No test asserts a time: the machine may be busy.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


@pytest.fixture(scope="session")
def minio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MinioServer]:
    """A running MinIO for all tests; without one they skip, with CI=true they fail."""
    try:
        binary = find_minio()
    except MinioUnavailableError as error:
        skip_or_fail(f"no MinIO: {error}")
    with MinioServer(binary, tmp_path_factory.mktemp("minio")) as server:
        yield server
