"""Sleeps until a bundle is finished: inotify on the spool, the clock where there is none."""

from __future__ import annotations

import ctypes
import os
import select
import struct
import time
from collections.abc import Iterator
from pathlib import Path

from agent.storage.spool import DONE

_IN_MOVED_TO = 0x00000080
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


class SpoolWatch:
    """Wakes for new done-markers in ``directory``, which may vanish and come back.

    Call `arm` before looking into the directory and `wait` after: what happens in between is
    not lost. Without inotify (``directory`` missing, the kernel's limit reached) only the
    timeout and ``stop_fd`` wake.
    """

    def __init__(self, directory: Path, stop_fd: int) -> None:
        self._directory = directory
        self._stop_fd = stop_fd
        self._inotify: int = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        self._watch = -1

    def close(self) -> None:
        """Give the descriptor back."""
        if self._inotify >= 0:
            os.close(self._inotify)
            self._inotify = -1

    def arm(self) -> bool:
        """Watch whatever directory has the name now; whether inotify works for it."""
        if self._inotify < 0:
            return False
        path = os.fsencode(self._directory)
        watch: int = _libc.inotify_add_watch(self._inotify, path, _WATCHED)
        if self._watch not in (watch, -1):
            _libc.inotify_rm_watch(self._inotify, self._watch)
        self._watch = watch
        return watch >= 0

    def wait(self, timeout_sec: float) -> bool:
        """Sleep until a marker appears, the directory changes, stop, or the time is over.

        Returns whether there is reason to look before the time is over.
        """
        poll = select.poll()
        poll.register(self._stop_fd, select.POLLIN)
        if self._inotify >= 0:
            poll.register(self._inotify, select.POLLIN)
        deadline = time.monotonic() + timeout_sec
        while (left := deadline - time.monotonic()) > 0:
            ready = {descriptor for descriptor, _ in poll.poll(left * 1000)}
            if self._stop_fd in ready:
                return False
            if ready and self._drain():
                return True
        return False

    def _drain(self) -> bool:
        """Take all events that are there; whether one is worth a look."""
        found = False
        for watch, mask, name in _events(self._inotify):
            stale = watch not in (self._watch, -1)
            if not stale and (mask & _LOOK_AGAIN or name.endswith(DONE.encode())):
                found = True
        return found


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
