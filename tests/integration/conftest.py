"""Fixtures of the tests that need real servers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.relay_server import RelayServer, why_not
from tests.requirements import skip_or_fail


@pytest.fixture(scope="session")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RelayServer]:
    """A central host with sshd and aod-relay; each test lets in hosts of its own."""
    if reason := why_not():
        skip_or_fail(f"no relay: {reason}")
    with RelayServer(tmp_path_factory.mktemp("relay")) as server:
        yield server
