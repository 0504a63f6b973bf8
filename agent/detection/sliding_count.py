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
        self._reach = limit - 1
        self._window_ns = window_ns
        self._tail = np.zeros(0, np.int64)

    def add(self, times_ns: NDArray[np.uint64]) -> int | None:
        """Take the next violations, in order of arrival.

        Returns the index in ``times_ns`` of the first one that completes a window, else None.
        """
        times = times_ns.view(np.int64)
        # What the kept ones complete together with the first of these, and these by themselves.
        joined = np.concatenate([self._tail, times[: self._reach]])
        border = self._completing(joined)
        kept = len(self._tail)
        self._tail = self._last(np.concatenate([self._tail, self._last(times)]))
        if border is not None:
            return border - kept
        return self._completing(times)

    def _last(self, times: NDArray[np.int64]) -> NDArray[np.int64]:
        return times[max(0, len(times) - self._reach) :]

    def _completing(self, times: NDArray[np.int64]) -> int | None:
        """Index of the first one that lies within the window of the one ``limit - 1`` before."""
        if len(times) < self._limit:
            return None
        within = times[self._reach :] - times[: len(times) - self._reach] <= self._window_ns
        first = int(np.argmax(within))
        return first + self._reach if within[first] else None
