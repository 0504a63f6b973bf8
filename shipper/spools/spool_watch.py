"""Sleeps until a bundle is finished: inotify on the spools, the clock where there is none."""

from __future__ import annotations

import ctypes
import os
import select
import struct
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from agent.storage.spool import DONE
from shipper.spools.state_directory import RETRY_FILE

_IN_MOVED_TO = 0x00000080
_IN_CREATE = 0x00000100
_IN_DELETE_SELF = 0x00000400
_IN_MOVE_SELF = 0x00000800
_IN_UNMOUNT = 0x00002000
_IN_Q_OVERFLOW = 0x00004000
_IN_IGNORED = 0x00008000
_IN_ONLYDIR = 0x01000000

_WATCHED = _IN_MOVED_TO | _IN_DELETE_SELF | _IN_MOVE_SELF | _IN_ONLYDIR
_LOOK_AGAIN = _IN_DELETE_SELF | _IN_MOVE_SELF | _IN_UNMOUNT | _IN_Q_OVERFLOW | _IN_IGNORED
_EVENT = struct.Struct("iIII")  # watch, mask, cookie, length of the name that follows

_libc = ctypes.CDLL(None, use_errno=True)


class Wake(Enum):
    """Why a `SpoolWatch.wait` ended."""

    TIME = "the time is over"
    STOP = "a stop was asked for"
    NEWS = "something new is there"
    RETRY = "somebody wants another try now"


@dataclass(frozen=True)
class Place:
    """A directory to watch: for files with ``suffix`` that come by rename and, with
    ``subdirectories``, for whatever is made in it."""

    directory: Path
    suffix: str = DONE
    subdirectories: bool = False

    @property
    def mask(self) -> int:
        """The inotify events that tell."""
        return _WATCHED | (_IN_CREATE if self.subdirectories else 0)

    def is_news(self, name: bytes) -> bool:
        """Whether what came under ``name`` is worth a look."""
        plain = not name.startswith(b".")
        return plain and (self.subdirectories or name.endswith(self.suffix.encode()))


class SpoolWatch:
    """Wakes for new done-markers in directories, which may vanish and come back.

    Call `arm` before looking into them and `wait` after: what happens in between is not lost.
    Without inotify (a directory is missing, the kernel's limit reached) only the timeout and
    ``stop_fd`` wake. One thread.
    """

    def __init__(self, stop_fd: int) -> None:
        self._stop_fd = stop_fd
        self._inotify: int = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        self._places: dict[int, Place] = {}
        self._news = self._retry = False

    @staticmethod
    def now() -> float:
        """The steady seconds that `wait` goes by."""
        return time.monotonic()

    def close(self) -> None:
        """Give the descriptor back."""
        if self._inotify >= 0:
            os.close(self._inotify)
            self._inotify = -1

    def arm(self, places: Iterable[Place]) -> bool:
        """Watch whatever directories have these names now, and no others; whether inotify works
        for all of them."""
        if self._inotify < 0:
            return False
        known, works = self._places, True
        self._places = {}
        for place in places:
            path = os.fsencode(place.directory)
            watch: int = _libc.inotify_add_watch(self._inotify, path, place.mask)
            works = works and watch >= 0
            if watch >= 0:
                self._places[watch] = place
        for stale in known.keys() - self._places.keys():
            _libc.inotify_rm_watch(self._inotify, stale)
        return works

    def take_news(self) -> bool:
        """Whether there was any since the last that `take_news` or `wait` told of; no wait."""
        if self._inotify >= 0:
            self._drain()
        news, self._news = self._news, False
        return news

    def wait(self, timeout_sec: float, *, heed_news: bool = True) -> Wake:
        """Sleep until a marker appears, a directory changes, stop, or the time is over.

        Without ``heed_news`` it is a pause, which news do not end: they are still told of by the
        next call.
        """
        poll = select.poll()
        poll.register(self._stop_fd, select.POLLIN)
        if self._inotify >= 0:
            poll.register(self._inotify, select.POLLIN)
        deadline = self.now() + timeout_sec
        while True:
            if self._retry:
                self._retry = False
                return Wake.RETRY
            if self._news and heed_news:
                self._news = False
                return Wake.NEWS
            left = deadline - self.now()
            ready = {descriptor for descriptor, _ in poll.poll(max(0.0, left) * 1000)}
            if self._stop_fd in ready:
                return Wake.STOP
            if not ready and left <= 0:
                return Wake.TIME
            if ready:
                self._drain()

    def _drain(self) -> None:
        """Take all events that are there."""
        for watch, mask, name in _events(self._inotify):
            place = self._places.get(watch)
            if name == RETRY_FILE.encode():
                self._retry = True
            elif watch == -1 or (place and (mask & _LOOK_AGAIN or place.is_news(name))):
                self._news = True


def _events(descriptor: int) -> Iterator[tuple[int, int, bytes]]:
    """(watch, mask, name) of each event in the queue."""
    while True:
        try:
            data = os.read(descriptor, 1 << 16)
        except BlockingIOError:
            return
        offset = 0
        while offset < len(data):
            watch, mask, _, length = _EVENT.unpack_from(data, offset)
            offset += _EVENT.size
            yield watch, mask, data[offset : offset + length].rstrip(b"\0")
            offset += length
