"""Waiting for the cifs module on the kernel's own announcements."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.kernel.module_events import loaded_cifs, wait_for_cifs, wait_for_new_cifs
from agent.service.stop_signal import StopSignal

ANNOUNCER = Path("/sys/devices/virtual/mem/null/uevent")
DEADLINE_SEC = 60
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make announcements")


class Waiter:
    """A thread in `wait_for_cifs`, and what it came back with."""

    def __init__(self, sign: Path) -> None:
        self.stop = StopSignal()
        self.result: bool | None = None
        self._sign = sign
        self._thread = threading.Thread(target=self._wait, daemon=True)
        self._thread.start()

    def _wait(self) -> None:
        self.result = wait_for_cifs(self.stop.fd, [self._sign])

    def joined(self, timeout_sec: float = DEADLINE_SEC) -> bool:
        self._thread.join(timeout_sec)
        return not self._thread.is_alive()


class NewWaiter(Waiter):
    """A thread in `wait_for_new_cifs`, for another than the one that is there at the start."""

    def __init__(self, sign: Path) -> None:
        self._before = loaded_cifs(sign)
        super().__init__(sign)

    def _wait(self) -> None:
        wait_for_new_cifs([self.stop.fd], self._before, self._sign)


@pytest.fixture
def sign(tmp_path: Path) -> Path:
    return tmp_path / "events" / "cifs"


@pytest.fixture
def waiter(sign: Path) -> Iterator[Waiter]:
    waiter = Waiter(sign)
    yield waiter
    waiter.stop.set()
    assert waiter.joined()


def announce() -> None:
    """Make the kernel announce something, as it would a module."""
    ANNOUNCER.write_text("change")


def test_module_that_is_there_needs_no_announcement(sign: Path) -> None:
    sign.mkdir(parents=True)
    waiter = Waiter(sign)
    assert waiter.joined()
    assert waiter.result is True


def test_stop_ends_the_wait(waiter: Waiter) -> None:
    waiter.stop.set()
    assert waiter.joined()
    assert waiter.result is False


def test_announcement_of_something_else_is_not_enough(waiter: Waiter) -> None:
    for _ in range(20):
        announce()
        assert not waiter.joined(0.02)
    assert waiter.result is None


def test_announcement_with_the_module_there_ends_the_wait(waiter: Waiter, sign: Path) -> None:
    announce()
    sign.mkdir(parents=True)
    announce()
    assert waiter.joined()
    assert waiter.result is True


def test_module_that_comes_between_the_look_and_the_wait_is_not_missed(
    sign: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The look finds nothing, then the module arrives and is announced, then the wait starts."""
    looked = os.path.isdir

    def look_and_arrive(path: Path) -> bool:
        found = looked(path)
        if path == sign and not found:
            sign.mkdir(parents=True)
            announce()
        return found

    monkeypatch.setattr("os.path.isdir", look_and_arrive)
    waiter = Waiter(sign)
    assert waiter.joined()
    assert waiter.result is True


def test_flood_of_announcements_is_survived(sign: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than the socket holds: the kernel says ENOBUFS, and another look settles it."""
    flooded = threading.Event()
    looked = os.path.isdir

    def look_during_a_flood(path: Path) -> bool:
        found = looked(path)
        if path == sign and not flooded.is_set():
            for _ in range(3000):
                announce()
            sign.mkdir(parents=True)
            flooded.set()
        return found

    monkeypatch.setattr("os.path.isdir", look_during_a_flood)
    waiter = Waiter(sign)
    assert waiter.joined()
    assert waiter.result is True


def test_only_another_module_ends_the_wait_for_a_new_one(sign: Path) -> None:
    sign.mkdir(parents=True)
    waiter = NewWaiter(sign)
    for _ in range(10):
        announce()
        assert not waiter.joined(0.02)
    sign.rename(sign.with_name("gone"))
    announce()
    assert not waiter.joined(0.2)
    sign.mkdir()
    announce()
    assert waiter.joined()


def test_a_module_that_ended_and_came_within_one_look_is_noticed(sign: Path) -> None:
    """The end is announced while the directory is still there, and by then it is another's."""
    sign.mkdir(parents=True)
    waiter = NewWaiter(sign)
    announce()
    sign.rename(sign.with_name("gone"))
    sign.mkdir()
    announce()
    assert waiter.joined()


def test_stop_ends_the_wait_for_a_new_module(sign: Path) -> None:
    sign.mkdir(parents=True)
    waiter = NewWaiter(sign)
    assert not waiter.joined(0.1)
    waiter.stop.set()
    assert waiter.joined()
