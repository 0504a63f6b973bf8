"""How long to leave a store alone that does not take anything."""

from __future__ import annotations

import random
from collections.abc import Callable


def full_jitter(limit_sec: float) -> float:
    """Anything from nothing to ``limit_sec``."""
    return random.uniform(0, limit_sec)  # noqa: S311 - it spreads load, it keeps no secret


class Pauses:
    """Exponentially growing pauses with full jitter: a fleet does not come back as one."""

    def __init__(
        self,
        initial_sec: float,
        longest_sec: float,
        jitter: Callable[[float], float] = full_jitter,
    ) -> None:
        self._initial_sec = initial_sec
        self._longest_sec = longest_sec
        self._jitter = jitter
        self._limit_sec = initial_sec

    def next_sec(self) -> float:
        """The next pause; of the one after it, twice as much is the limit."""
        limit_sec = min(self._limit_sec, self._longest_sec)
        self._limit_sec = min(2 * limit_sec, self._longest_sec)
        return self._jitter(limit_sec)

    def reset(self) -> None:
        """Something went: begin with short ones."""
        self._limit_sec = self._initial_sec
