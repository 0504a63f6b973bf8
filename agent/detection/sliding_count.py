"""Counts violations in a sliding window of time, across any batch boundary."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class SlidingCount:
    """Tells when ``limit`` violations lie within ``window_ns`` of each other.

    Only the times of the last ``limit - 1`` violations are kept between batches; they are all
    that a later violation can complete a window with.
    """

    def __init__(self, limit: int, window_ns: int) -> None:
        self._limit = limit
        self._window_ns = window_ns
        self._tail = np.zeros(0, np.int64)

    def add(self, times_ns: NDArray[np.uint64]) -> int | None:
        """Take the next violations, in order of arrival.

        Returns the index in ``times_ns`` of the first one that completes a window, else None.
        """
        if len(times_ns) == 0:
            return None
        times = np.concatenate([self._tail, times_ns.view(np.int64)])
        known = len(self._tail)
        reach = self._limit - 1
        self._tail = times[max(0, len(times) - reach) :].copy()
        if len(times) < self._limit:
            return None
        complete = times[reach:] - times[: len(times) - reach] <= self._window_ns
        first = int(np.argmax(complete))
        if not complete[first]:
            return None
        return first + reach - known
