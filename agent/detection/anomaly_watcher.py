"""Follows the flight recorder with the detectors and orders collections."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from agent.configuration.schema import Config
from agent.detection.anomaly import AnomalyAction, Evidence
from agent.detection.event_batch import EventBatch
from agent.detection.incidents import IncidentTracker
from agent.detection.registry import ANOMALY_HANDLER_REGISTRY, AnomalyHandler
from agent.events.event_source import Snapshot
from agent.events.flight_recorder import FlightRecorder
from agent.service.audit import Audit
from agent.storage.ulid import new_ulid

NANOSECONDS = 1_000_000_000


class AnomalyWatcher:
    """Runs every event past every rule, once; a new incident becomes an `AnomalyAction`.

    ``collect`` takes the order without blocking; False: it could not. ``snapshot`` copies the
    kernel's memory at the trigger. A restart of `run` goes on where the last one ended.
    """

    def __init__(
        self,
        config: Config,
        recorder: FlightRecorder,
        snapshot: Callable[[], Snapshot],
        collect: Callable[[AnomalyAction], bool],
        audit: Audit,
    ) -> None:
        self._recorder = recorder
        self._snapshot = snapshot
        self._collect = collect
        self._audit = audit
        self._handlers = load_handlers(config)
        self._quiet_ns = int(config.watcher.incident_quiet_sec * NANOSECONDS)
        self._window_ns = int(config.watch_interval_sec * NANOSECONDS)
        self.incidents = IncidentTracker(self._quiet_ns)
        self.position = 0
        self.beats = 0

    def run(self) -> None:
        """Follow the recorder until it is closed and everything in it was seen."""
        while True:
            end = self._recorder.wait_beyond(self.position)
            self.beats += 1
            while self.position < end:
                events = self._recorder.view(self.position, end)
                self.position += len(events)
                try:
                    for batch in in_windows(events, self._quiet_ns, self._window_ns):
                        self._examine(batch)
                finally:
                    self._recorder.release(self.position)
            if self._recorder.closed and self.position == self._recorder.appended:
                return

    def ping(self) -> None:
        """Make the loop come round, which `beats` then shows."""
        self._recorder.poke()

    def _examine(self, events: NDArray[np.void]) -> None:
        batch = EventBatch.of(events)
        for handler in self._handlers:
            time_ns = handler.detect(batch)
            if time_ns is not None and self.incidents.is_new(handler.rule.name, time_ns):
                self._order(handler, time_ns)

    def _order(self, handler: AnomalyHandler, time_ns: int) -> None:
        rule = handler.rule
        try:
            action = self._action(handler, time_ns)
            self._record(action)
            accepted = self._collect(action)
        except BaseException:
            self.incidents.collection_failed(rule.name)
            raise
        if not accepted:
            self.incidents.collection_failed(rule.name)

    def _record(self, action: AnomalyAction) -> None:
        name = action.anomaly.name
        message = f"{name}: {action.trigger.reason}"
        self._audit.record("anomaly", message, anomaly=name, bundle=action.id)

    def _action(self, handler: AnomalyHandler, time_ns: int) -> AnomalyAction:
        snapshot = self._snapshot()
        history = self._recorder.history(self.position)
        ends = history["cmd_end_time_ns"]
        window = history[(ends <= time_ns) & (ends + np.uint64(handler.window_ns) >= time_ns)]
        return AnomalyAction(
            id=new_ulid(),
            wall_ns=time.time_ns(),
            anomaly=handler.rule,
            trigger=handler.describe(EventBatch.of(window), time_ns),
            evidence=Evidence(
                events=history,
                histograms=snapshot.histograms,
                inflight=snapshot.inflight,
                counters=snapshot.counters,
                wall_offset_ns=snapshot.wall_offset_ns,
                source=snapshot.source,
            ),
        )


def in_windows(
    events: NDArray[np.void], quiet_ns: int, window_ns: int
) -> Sequence[NDArray[np.void]]:
    """``events`` as they are if they can hold only one incident, else cut by ``window_ns``.

    A detector finds one anomaly in a batch; a batch of a fast replay, or of an agent that was held
    up, may span several incidents.
    """
    times = events["cmd_end_time_ns"]
    if int(times[-1]) - int(times[0]) <= quiet_ns:
        return [events]
    window = (times - times[0]) // np.uint64(max(1, window_ns))
    return np.split(events, np.flatnonzero(np.diff(window)) + 1)


def load_handlers(config: Config) -> Sequence[AnomalyHandler]:
    """One detector for each rule; its window is ``watch_interval_sec``."""
    window_ns = int(config.watch_interval_sec * NANOSECONDS)
    return [
        ANOMALY_HANDLER_REGISTRY[rule.type](rule, window_ns)
        for rule in config.guardian.anomalies.values()
    ]
