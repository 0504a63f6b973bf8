"""What the kernel program would have counted until a moment of a trace."""

from __future__ import annotations

import threading

import numpy as np
from numpy.typing import NDArray

from agent.events.activity import add_commands, no_activity
from bpf import abi

# So many commands are counted at a time: what that takes in memory does not grow with the trace.
PART = 65_536


class TraceTotals:
    """Histograms and activity; from any thread.

    Only what came since the last question is counted, so questions in order of time cost one pass
    over the trace in all. One about an earlier moment begins anew.
    """

    def __init__(self, commands: NDArray[np.void]) -> None:
        """``commands``: `bpf.abi.EVENT` records in order of their end."""
        self._commands = commands
        self._lock = threading.Lock()
        self._counted = 0
        self._histograms = no_latencies()
        self._activity = no_activity()

    def after(self, count: int) -> tuple[NDArray[np.uint64], NDArray[np.void]]:
        """Histograms (COMMANDS, BUCKETS) and activity table after the first ``count`` commands."""
        with self._lock:
            if count < self._counted:
                self._counted = 0
                self._histograms, self._activity = no_latencies(), no_activity()
            while self._counted < count:
                end = min(count, self._counted + PART)
                part = self._commands[self._counted : end]
                self._histograms += histograms_of(part)
                add_commands(self._activity, part)
                self._counted = end
            return self._histograms.copy(), self._activity.copy()


def no_latencies() -> NDArray[np.uint64]:
    """Histograms without a command."""
    return np.zeros((abi.COMMANDS, abi.BUCKETS), np.uint64)


def histograms_of(events: NDArray[np.void]) -> NDArray[np.uint64]:
    """The kernel program's histograms, uint64 (COMMANDS, BUCKETS), made from ``events``."""
    latency = np.maximum(events["metric_latency_ns"], 1)
    # frexp gives the bit length: bucket b holds [2^(b-1), 2^b).
    bucket = np.minimum(np.frexp(latency.astype(np.float64))[1], abi.BUCKETS - 1)
    row = np.minimum(events["smbcommand"], abi.COMMANDS - 1).astype(np.int64)
    flat = np.bincount(row * abi.BUCKETS + bucket, minlength=abi.COMMANDS * abi.BUCKETS)
    return flat.reshape(abi.COMMANDS, abi.BUCKETS).astype(np.uint64)
