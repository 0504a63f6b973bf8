"""The limit of what all uploads together may take of the network."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from agent.service.stop_signal import StopSignal
from shipper.configuration.schema import LimitsConfig

_MEGABYTE = 1_000_000


class Pace:
    """Lets ``bytes_per_second`` pass, shared by any number of threads, in the order they ask.

    Nothing is saved up while nobody sends. ``stop`` ends every wait: what is under way then
    goes on without a limit.
    """

    def __init__(
        self,
        bytes_per_second: float,
        stop: StopSignal,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.bytes_per_second = bytes_per_second
        self._stop = stop
        self._clock = clock
        self._lock = threading.Lock()
        self._free_at = 0.0

    def take(self, amount: int) -> None:
        """Return when ``amount`` bytes may be sent."""
        with self._lock:
            now = self._clock()
            start = max(now, self._free_at)
            self._free_at = start + amount / self.bytes_per_second
        if start > now:
            self._stop.wait(start - now)


def make_pace(limits: LimitsConfig, stop: StopSignal) -> Pace | None:
    """The configured limit; None when there is none."""
    rate = limits.bandwidth_mb_per_sec * _MEGABYTE
    return Pace(rate, stop) if rate else None
