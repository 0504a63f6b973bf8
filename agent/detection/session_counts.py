"""A sliding count for each session: trouble with one server is not another's."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from agent.detection.sliding_count import SlidingCount

# A host has a session for each user and server; beyond this the longest known is forgotten.
MOST_SESSIONS = 1_024


class SessionCounts:
    """`SlidingCount` by session."""

    def __init__(self, limit: int, window_ns: int) -> None:
        self._limit = limit
        self._window_ns = window_ns
        self._counts: dict[int, SlidingCount] = {}

    def add(
        self, times_ns: NDArray[np.uint64], sessions: NDArray[np.uint64]
    ) -> dict[int, int | None]:
        """Take the next violations, in order of arrival.

        For each session among them the index of the first one that completes a window, or None.
        """
        first = int(sessions[0])
        if (sessions == sessions[0]).all():
            return {first: self._of(first).add(times_ns)}
        found: dict[int, int | None] = {}
        rest = np.arange(len(sessions))
        while len(rest):
            session = int(sessions[rest[0]])
            own = sessions[rest] == sessions[rest[0]]
            position = self._of(session).add(times_ns[rest[own]])
            found[session] = None if position is None else int(rest[own][position])
            rest = rest[~own]
        return found

    def _of(self, session: int) -> SlidingCount:
        count = self._counts.get(session)
        if count is None:
            if len(self._counts) >= MOST_SESSIONS:
                del self._counts[next(iter(self._counts))]
            count = self._counts[session] = SlidingCount(self._limit, self._window_ns)
        return count
