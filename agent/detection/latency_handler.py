"""Latency: too many commands over their limit in the window, or one of a second or more."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from agent.configuration.schema import AnomalyConfig
from agent.configuration.smb_commands import command_name
from agent.detection.anomaly import Trigger
from agent.detection.anomaly_handler import AnomalyHandler
from agent.detection.description import actor, duration, seconds
from agent.detection.event_batch import EventBatch
from agent.detection.sliding_count import SlidingCount
from bpf import abi

ALWAYS_ANOMALOUS_NS = 1_000_000_000
NEVER = np.iinfo(np.uint64).max


class LatencyAnomalyHandler(AnomalyHandler):
    """Triggers at ``acceptable_count`` slow commands in the window, or at one of 1 s or more."""

    def __init__(self, rule: AnomalyConfig, window_ns: int) -> None:
        super().__init__(rule, window_ns)
        self._count = SlidingCount(rule.acceptable_count, window_ns)
        # The last row stands for numbers outside the table: never slow.
        self._limits = np.full(abi.COMMANDS + 1, NEVER, np.uint64)
        for command, limit_ns in rule.limits_ns().items():
            self._limits[command] = limit_ns

    def detect(self, batch: EventBatch) -> int | None:
        slow = self._slow(batch)
        if not slow.any():
            return None
        times = batch.time_ns if slow.all() else batch.time_ns[slow]
        position = self._count.add(times)
        if batch.latency_ns.max() >= ALWAYS_ANOMALOUS_NS:
            very_slow = batch.latency_ns[slow] >= ALWAYS_ANOMALOUS_NS
            first = int(np.argmax(very_slow))
            if very_slow[first] and (position is None or first < position):
                position = first
        return None if position is None else int(times[position])

    def describe(self, window: EventBatch, time_ns: int) -> Trigger:
        slow = window.events[self._slow(window)]
        worst = slow[np.argmax(slow["metric_latency_ns"])]
        return Trigger(
            time_ns=time_ns,
            reason=self._reason(len(slow), worst),
            violations=len(slow),
            worst_ns=int(worst["metric_latency_ns"]),
            command=int(worst["smbcommand"]),
        )

    def _reason(self, slow: int, worst: np.void) -> str:
        command, worst_ns = int(worst["smbcommand"]), int(worst["metric_latency_ns"])
        if slow < self.rule.acceptable_count:
            return (
                f"{command_name(command)} took {duration(worst_ns)} by {actor(worst)}; "
                f"{duration(ALWAYS_ANOMALOUS_NS)} or more is always an anomaly"
            )
        return (
            f"{slow} commands over their limit (rule: {self.rule.acceptable_count} in "
            f"{seconds(self.window_ns)}), worst {command_name(command)} with "
            f"{duration(worst_ns)} (limit {duration(int(self._limits[command]))}) "
            f"by {actor(worst)}"
        )

    def _slow(self, batch: EventBatch) -> NDArray[np.bool_]:
        slow: NDArray[np.bool_] = batch.latency_ns >= np.take(
            self._limits, batch.command, mode="clip"
        )
        return slow
