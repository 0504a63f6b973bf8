"""A stop request that threads, signal handlers and `poll` can share."""

from __future__ import annotations

import os
import select


class StopSignal:
    """Set once, from any thread or signal handler; ``fd`` then stays readable.

    There is no lock in it: a handler that runs in the middle of a `wait` must not block.
    """

    def __init__(self) -> None:
        self._set = False
        self.fd = self._write_end = -1
        self.fd, self._write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def set(self) -> None:
        """Ask everything that waits on this to end."""
        if not self._set:
            self._set = True
            os.write(self._write_end, b"\0")

    def close(self) -> None:
        """Give the descriptors back; nobody may wait on it, or set it, any more. It is also done
        with the last reference, so whoever uses ``fd`` keeps this object."""
        for descriptor in (self.fd, self._write_end):
            if descriptor >= 0:
                os.close(descriptor)
        self.fd = self._write_end = -1

    def __del__(self) -> None:
        self.close()

    def is_set(self) -> bool:
        """Whether the request was made."""
        return self._set

    def wait(self, timeout_sec: float | None) -> bool:
        """Block until set or the time is over; whether it is set."""
        poller = select.poll()
        poller.register(self.fd, select.POLLIN)
        poller.poll(None if timeout_sec is None else timeout_sec * 1000)
        return self._set
