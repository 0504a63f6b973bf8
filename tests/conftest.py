"""Fixtures of every test."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.minio_server import MinioServer, MinioUnavailableError, find_minio


@pytest.fixture(scope="session")
def minio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MinioServer]:
    """A running MinIO for all tests; without one they skip, with CI=true they fail."""
    try:
        server = MinioServer(find_minio(), tmp_path_factory.mktemp("minio"))
        server.start()
    except MinioUnavailableError as error:
        if os.environ.get("CI") == "true":
            pytest.fail(f"MinIO is required here: {error}")
        pytest.skip(f"no MinIO: {error}")
    try:
        yield server
    finally:
        server.stop()
