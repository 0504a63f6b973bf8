"""One line on a terminal that follows many bundles."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import TextIO

from shipper.status.recent_rate import RecentRate
from shipper.wording import size_text, span_text

_REDRAW_SEC = 0.1
_BAR = 20


class Progress:
    """Bundles done of ``total_bundles``, bytes of ``total_bytes`` (0: not of interest), rate and
    time left, redrawn on ``stream`` at most ten times a second; silent where that is no terminal.

    Use it in a ``with``: the line is gone at its end. Many threads.
    """

    def __init__(
        self,
        total_bundles: int,
        total_bytes: int,
        stream: TextIO,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._total = total_bundles
        self._total_bytes = total_bytes
        self._stream = stream
        self._steady = steady
        self._shows = stream.isatty()
        self._lock = threading.Lock()
        self._rate = RecentRate(steady)
        self._bundles = 0
        self._bytes = 0
        self._drawn: float | None = None

    def __enter__(self) -> Progress:
        with self._lock:
            self._draw()
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._erase()

    def advance(self, size: int) -> None:
        """One more bundle is done, of ``size`` bytes."""
        with self._lock:
            self._bundles += 1
            self._bytes += size
            self._rate.add(size if self._total_bytes else 1)
            if self._drawn is None or self._steady() - self._drawn >= _REDRAW_SEC:
                self._draw()

    @contextlib.contextmanager
    def hidden(self) -> Iterator[None]:
        """For the time of other output on the terminal."""
        with self._lock:
            self._erase()
            yield
            self._draw()

    def _draw(self) -> None:
        if self._shows:
            columns = os.get_terminal_size(self._stream.fileno()).columns or 80
            self._write(f"\r\033[K{self._line()[: columns - 1]}")
            self._drawn = self._steady()

    def _erase(self) -> None:
        if self._shows:
            self._write("\r\033[K")

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()

    def _line(self) -> str:
        total = max(self._total, self._bundles)
        done = (
            self._bytes / self._total_bytes if self._total_bytes else self._bundles / (total or 1)
        )
        filled = int(_BAR * min(1.0, done))
        parts = [f"[{'#' * filled}{'.' * (_BAR - filled)}] {self._bundles}/{total} bundles"]
        if self._total_bytes:
            total_bytes = max(self._total_bytes, self._bytes)
            parts.append(f"{size_text(self._bytes)} of {size_text(total_bytes)}")
        return ", ".join([*parts, *self._pace()])

    def _pace(self) -> list[str]:
        rate = self._rate.per_sec()
        if rate is None:
            return []
        left = self._total_bytes - self._bytes if self._total_bytes else self._total - self._bundles
        text = f"{size_text(rate)}/s" if self._total_bytes else f"{rate:.3g}/s"
        return [text, f"{span_text(left / rate)} left"]
