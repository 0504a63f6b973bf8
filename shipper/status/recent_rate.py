"""How fast it goes lately."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

WINDOW_SEC = 60.0


class RecentRate:
    """Bytes per second over the last minute, by a clock that never jumps. Not for threads."""

    def __init__(self, steady: Callable[[], float] = time.monotonic) -> None:
        self._steady = steady
        self._began = steady()
        self._done: deque[tuple[float, int]] = deque()
        self._bytes = 0

    def add(self, count: int) -> None:
        """So many bytes have just arrived."""
        self._done.append((self._steady(), count))
        self._bytes += count
        self._forget()

    def per_sec(self) -> float | None:
        """The rate; None when nothing arrived in that time."""
        self._forget()
        passed = min(WINDOW_SEC, self._steady() - self._began)
        return self._bytes / passed if self._bytes and passed > 0 else None

    def _forget(self) -> None:
        while self._done and self._done[0][0] <= self._steady() - WINDOW_SEC:
            self._bytes -= self._done.popleft()[1]
