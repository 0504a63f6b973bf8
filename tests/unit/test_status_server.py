from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from agent.service.status_server import SOCKET_NAME, NotRunningError, StatusServer, query_status


@pytest.fixture
def server(tmp_path: Path):
    server = StatusServer(tmp_path, lambda: {"state": "fine"})
    server.open()
    thread = threading.Thread(target=server.run)
    thread.start()
    yield server
    server.stop()
    thread.join(10)
    assert not thread.is_alive()


def test_the_status_is_answered_again_and_again(server: StatusServer, tmp_path: Path) -> None:
    for _ in range(3):
        assert query_status(tmp_path) == {"state": "fine"}


def test_a_client_that_leaves_at_once_harms_nobody(server: StatusServer, tmp_path: Path) -> None:
    for _ in range(5):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.connect(str(tmp_path / SOCKET_NAME))
    assert query_status(tmp_path) == {"state": "fine"}


def test_the_socket_is_for_the_group_only(server: StatusServer, tmp_path: Path) -> None:
    assert (tmp_path / SOCKET_NAME).stat().st_mode & 0o777 == 0o660


def test_no_agent_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(NotRunningError, match="no agent answers"):
        query_status(tmp_path)


def test_a_socket_left_by_a_killed_agent_is_replaced(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as left:
        left.bind(str(tmp_path / SOCKET_NAME))
    with pytest.raises(NotRunningError):
        query_status(tmp_path)
    server = StatusServer(tmp_path, dict)
    server.open()
    server.stop()
    assert not (tmp_path / SOCKET_NAME).exists()
