"""Freezes what a bundle shows of the time before, at and after its trigger."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from agent.cifs.state import CifsState
from agent.detection.anomaly import Aftermath, Evidence
from agent.detection.scene import Scene
from agent.detection.sight import Sight
from agent.events.event_source import Snapshot
from agent.events.flight_recorder import FlightRecorder

KEPT = 16
SPACING_NS = 30_000_000_000


class SnapshotSource(Protocol):
    """What is asked of the source of events."""

    def snapshot(self, at_ns: int | None = None) -> Snapshot:
        """The kernel's memory, from any thread."""


@dataclass(frozen=True)
class PastHistograms:
    """The running histograms as they were at ``time_ns``."""

    time_ns: int
    histograms: NDArray[np.uint64]


class EvidenceKeeper:
    """For the watcher's thread; what `aftermath` returns may be called from any."""

    def __init__(self, recorder: FlightRecorder, source: SnapshotSource) -> None:
        self._recorder = recorder
        self._source = source
        self._past: deque[PastHistograms] = deque(maxlen=KEPT)

    def note(self, sight: Sight) -> None:
        """Keep the histograms of a look, so that a bundle can show those before its trigger."""
        if self._past and (sight.histograms < self._past[-1].histograms).any():
            self._past.clear()  # a program loaded anew counts from 0
        if not self._past or sight.time_ns - self._past[-1].time_ns >= SPACING_NS:
            self._past.append(PastHistograms(sight.time_ns, sight.histograms))

    def scene(
        self, position: int, time_ns: int, state: CifsState, renew: Callable[[], CifsState]
    ) -> Scene:
        """What is known of the moment ``time_ns``, when all events before number ``position``
        have been seen. Nothing is copied before it is asked for."""
        return Scene(
            lambda: self._recorder.history(position),
            lambda: self._source.snapshot(time_ns),
            state,
            renew,
        )

    def of(self, scene: Scene, window_began_ns: int) -> Evidence:
        """Evidence of a trigger whose window began at ``window_began_ns``."""
        snapshot = scene.snapshot
        before = [past for past in self._past if past.time_ns <= window_began_ns]
        return Evidence(
            events=scene.history,
            histograms=snapshot.histograms,
            inflight=snapshot.inflight,
            counters=snapshot.counters,
            wall_offset_ns=snapshot.wall_offset_ns,
            source=snapshot.source,
            before_ns=before[-1].time_ns if before else 0,
            histograms_before=before[-1].histograms if before else None,
        )

    def aftermath(self, position: int) -> Callable[[], Aftermath]:
        """For the end of the collection: what came from event number ``position`` on."""

        def since() -> Aftermath:
            end = self._recorder.appended
            history, snapshot = self._recorder.history(end), self._source.snapshot()
            count = min(end - position, len(history))
            return Aftermath(history[len(history) - count :], snapshot.histograms)

        return since
