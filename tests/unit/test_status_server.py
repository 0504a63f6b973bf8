from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.service.status_server import (
    SOCKET_NAME,
    NotRunningError,
    SocketTakenError,
    Status,
    StatusFaultError,
    StatusServer,
    query_status,
)


@contextlib.contextmanager
def serving(directory: Path, status: Callable[[], Status]) -> Iterator[StatusServer]:
    server = StatusServer(directory, status)
    server.open()
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield server
    finally:
        server.stop()
        thread.join(10)
    assert not thread.is_alive()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[StatusServer]:
    with serving(tmp_path, lambda: {"state": "fine"}) as server:
        yield server


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


def test_a_second_agent_is_refused_and_harms_nothing(server: StatusServer, tmp_path: Path) -> None:
    second = StatusServer(tmp_path, dict)
    with pytest.raises(SocketTakenError, match="RUNTIME_DIRECTORY"):
        second.open()
    second.stop()
    assert query_status(tmp_path) == {"state": "fine"}


def test_an_agent_too_busy_to_accept_is_one_too(tmp_path: Path) -> None:
    path = str(tmp_path / SOCKET_NAME)
    kind = socket.SOCK_STREAM | socket.SOCK_NONBLOCK
    with socket.socket(socket.AF_UNIX) as busy, contextlib.ExitStack() as clients:
        busy.bind(path)
        busy.listen(0)
        with pytest.raises(BlockingIOError):
            while True:
                clients.enter_context(socket.socket(socket.AF_UNIX, kind)).connect(path)
        with pytest.raises(SocketTakenError):
            StatusServer(tmp_path, dict).open()
    assert (tmp_path / SOCKET_NAME).exists()


def test_the_end_of_one_leaves_the_socket_of_another(tmp_path: Path) -> None:
    first, second = StatusServer(tmp_path, dict), StatusServer(tmp_path, dict)
    first.open()
    (tmp_path / SOCKET_NAME).unlink()
    second.open()
    first.stop()
    assert (tmp_path / SOCKET_NAME).exists()
    second.stop()
    assert not (tmp_path / SOCKET_NAME).exists()


@pytest.mark.parametrize(
    ("make", "text"),
    [(lambda: Path("/dev/null/x").read_text(), "Not a directory"), (lambda: {"x": {1}}, "set")],
)
def test_a_status_that_cannot_be_made_is_said_so_each_time(
    tmp_path: Path, make: Callable[[], Status], text: str
) -> None:
    with serving(tmp_path, make):
        for _ in range(2):
            with pytest.raises(StatusFaultError, match=text):
                query_status(tmp_path)
