from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.service.watchdog import Heart, Watchdog, watchdog_interval_sec


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The service manager's end of the notification socket."""
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as receiver:
        receiver.bind(str(path))
        monkeypatch.setenv("NOTIFY_SOCKET", str(path))
        yield receiver


def received(manager: socket.socket) -> list[bytes]:
    messages = []
    while True:
        try:
            messages.append(manager.recv(4_096))
        except BlockingIOError:
            return messages


class Loop:
    """A component whose loop comes round only while it is not stuck."""

    def __init__(self) -> None:
        self.beats = 0
        self.stuck = False

    def ping(self) -> None:
        self.beats += not self.stuck


def test_the_manager_hears_of_completed_loops_only(manager: socket.socket) -> None:
    good, bad = Loop(), Loop()
    watchdog = Watchdog(
        [Heart("a", good.ping, lambda: good.beats), Heart("b", bad.ping, lambda: bad.beats)]
    )
    watchdog.tick()
    watchdog.tick()
    assert received(manager) == [b"WATCHDOG=1", b"WATCHDOG=1"]
    bad.stuck = True
    watchdog.tick()
    assert received(manager) == [b"WATCHDOG=1"]
    watchdog.tick()
    watchdog.tick()
    assert received(manager) == []
    bad.stuck = False
    watchdog.tick()
    watchdog.tick()
    assert received(manager) == [b"WATCHDOG=1"]


@pytest.mark.parametrize(
    ("microseconds", "pid", "interval"),
    [("120000000", None, 40.0), ("", None, None), ("0", None, None), ("5", "1", None)],
)
def test_the_interval_is_a_third_of_what_the_manager_allows(
    monkeypatch: pytest.MonkeyPatch, microseconds: str, pid: str | None, interval: float | None
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", microseconds)
    monkeypatch.setenv("WATCHDOG_PID", pid or str(os.getpid()))
    assert watchdog_interval_sec() == interval
