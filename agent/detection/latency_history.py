"""Latencies of the last minutes and of the time before, from the kernel's running histograms."""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

from bpf import abi

SLICES = 6

Table = NDArray[np.float64]


class LatencyHistory:
    """Tables are (COMMANDS, BUCKETS) counts. ``recent`` spans the last ``recent_ns``, in slices;
    a slice that grows older goes into the usual, which forgets by half in ``baseline_ns``.
    """

    def __init__(self, recent_ns: int, baseline_ns: int) -> None:
        self.slice_ns = max(1, recent_ns // SLICES)
        self._baseline_ns = baseline_ns
        self._slices: deque[Table] = deque()
        self._usual = np.zeros((abi.COMMANDS, abi.BUCKETS))
        self._total: NDArray[np.uint64] | None = None
        self._last_ns = 0
        self._held_since: int | None = None
        self._hold_slices = 0

    def add(self, time_ns: int, histograms: NDArray[np.uint64]) -> None:
        """Take the running ``histograms`` as of ``time_ns``; too soon after the last: ignored."""
        if self._total is not None and time_ns - self._last_ns < self.slice_ns:
            return
        if self._total is None or (histograms < self._total).any():
            # The first look, or a program loaded anew that counts from 0.
            self._total, self._last_ns = histograms.copy(), time_ns
            return
        # Looks stop after a slice without commands, so those of a long gap came at its end.
        passed = max(1, (time_ns - self._last_ns) // self.slice_ns)
        silent = [np.zeros_like(self._usual) for _ in range(min(passed - 1, SLICES))]
        self._slices.extend([*silent, (histograms - self._total).astype(np.float64)])
        self._total, self._last_ns = histograms.copy(), time_ns
        while len(self._slices) > SLICES:
            self._age(self._slices.popleft())

    def hold(self, held: bool, time_ns: int) -> None:
        """Keep what grows older out of the usual while ``held``, for ``baseline_ns`` at most; what
        is recent at the end of it is kept out as well."""
        if not held:
            self._held_since = None
            return
        if self._held_since is None:
            self._held_since = time_ns
        if time_ns - self._held_since < self._baseline_ns:
            self._hold_slices = SLICES

    def recent(self) -> Table:
        """Counts of the last slices."""
        total: Table = np.sum(self._slices, axis=0) if self._slices else np.zeros_like(self._usual)
        return total

    def usual(self) -> Table:
        """Counts of the time before, older ones worth less."""
        return self._usual

    def next_ns(self, time_ns: int, histograms: NDArray[np.uint64]) -> int | None:
        """When the next slice is complete; None when the last one, and the time since, held no
        command."""
        if self._total is None:
            return None
        flowing = (histograms > self._total).any() or (self._slices and self._slices[-1].any())
        return max(time_ns, self._last_ns + self.slice_ns) if flowing else None

    def _age(self, oldest: Table) -> None:
        if self._hold_slices:
            self._hold_slices -= 1
            return
        self._usual *= 0.5 ** (self.slice_ns / self._baseline_ns)
        self._usual += oldest


def quantile_ns(buckets: NDArray[np.float64], quantile: float) -> float:
    """The latency below which ``quantile`` of the counts lie; bucket b holds [2^(b-1), 2^b) ns.

    Within a bucket it is interpolated by ratio, so that a shift of less than a power of two shows.
    """
    sums = np.cumsum(buckets)
    if sums[-1] <= 0:
        return 0.0
    wanted = quantile * sums[-1]
    bucket = int(np.searchsorted(sums, wanted))
    before = sums[bucket - 1] if bucket else 0.0
    within = (wanted - before) / max(buckets[bucket], 1e-12)
    return float(2.0 ** (bucket - 1 + min(1.0, within)))
