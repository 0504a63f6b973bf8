"""Errors: too many commands failed with a tracked errno in the window."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from agent.configuration.schema import AnomalyConfig
from agent.configuration.smb_commands import command_name, errno_name
from agent.detection.anomaly import Trigger
from agent.detection.anomaly_handler import AnomalyHandler
from agent.detection.description import actor, seconds
from agent.detection.event_batch import EventBatch
from agent.detection.sliding_count import SlidingCount
from bpf import abi


class ErrorAnomalyHandler(AnomalyHandler):
    """Triggers at ``acceptable_count`` failures with any errno of the tracked set."""

    def __init__(self, rule: AnomalyConfig, window_ns: int) -> None:
        super().__init__(rule, window_ns)
        self._count = SlidingCount(rule.acceptable_count, window_ns)
        self._tracked = np.zeros(abi.ERRNOS, np.bool_)
        self._tracked[[min(code, abi.ERRNOS - 1) for code in rule.track]] = True
        self._tracked[0] = False

    def detect(self, batch: EventBatch) -> int | None:
        failed = self._failed(batch)
        if not len(failed):
            return None
        times = batch.time_ns[failed]
        position = self._count.add(times)
        return None if position is None else int(times[position])

    def describe(self, window: EventBatch, time_ns: int) -> Trigger:
        failures = window.events[self._failed(window)]
        last = failures[-1]
        command = int(last["smbcommand"])
        return Trigger(
            time_ns=time_ns,
            reason=(
                f"{len(failures)} commands failed (rule: {self.rule.acceptable_count} in "
                f"{seconds(self.window_ns)}), last {command_name(command)} with "
                f"{errno_name(int(last['retval']))} by {actor(last)}"
            ),
            violations=len(failures),
            worst_ns=int(failures["metric_latency_ns"].max()),
            command=command,
        )

    def _failed(self, batch: EventBatch) -> NDArray[np.intp]:
        """Places of the failures in the batch; few of them fail as a rule."""
        places = np.flatnonzero(batch.retval != 0)
        codes = np.maximum(-batch.retval[places], 0)
        failed: NDArray[np.intp] = places[np.take(self._tracked, codes, mode="clip")]
        return failed
