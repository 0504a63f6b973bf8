"""A recorded trace as a source of events: the kernel's part played from a file."""

from __future__ import annotations

import threading
import time

import numpy as np
from numpy.typing import NDArray

from agent.cifs.state import CifsTexts
from agent.events.event_source import Snapshot
from agent.events.flight_recorder import FlightRecorder
from agent.events.trace import Trace
from agent.events.trace_memory import TraceMemory
from agent.kernel.kernel_filter import apply_filter
from agent.kernel.ring_buffer import RAW_EVENT
from agent.service.stop_signal import StopSignal

BATCH_EVENTS = 1_024
# How often a paced replay hands over what has become due.
PACE_SEC = 0.02


class TraceSource:
    """Plays ``trace`` through the kernel's filter, ``speed`` times as fast as it was recorded.

    A speed of 0 plays as fast as the pipeline takes it. Once ``interrupt`` is set, nothing more
    comes. It has no clock: whoever follows it goes by the events' times, and asks for the memory
    as it was then.
    """

    def __init__(
        self,
        trace: Trace,
        settings: NDArray[np.void],
        speed: float,
        interrupt: StopSignal,
    ) -> None:
        self._interrupt = interrupt
        self._trace = trace
        self._memory = TraceMemory(trace)
        self._events = apply_filter(settings, trace.events)
        self._times = np.maximum.accumulate(self._events["cmd_end_time_ns"].astype(np.int64))
        self._speed = speed
        self._position = 0
        self._started: float | None = None
        self._woken = threading.Event()

    @property
    def finished(self) -> bool:
        """Whether every event was handed over, or the rest will not be."""
        return self._position == len(self._events) or self._interrupt.is_set()

    def wait(self) -> None:
        if self._started is None:
            self._started = time.monotonic()
        while not self.pending() and not self.finished:
            if self._woken.wait(PACE_SEC):
                self._woken.clear()
                return

    def wake(self) -> None:
        self._woken.set()

    def pending(self) -> int:
        return self._due() - self._position

    def drain(self, recorder: FlightRecorder) -> int:
        if self.finished:
            return 0
        batch = self._events[self._position : min(self._due(), self._position + BATCH_EVENTS)]
        if len(batch):
            self._position += len(batch)
            recorder.append(batch.view(RAW_EVENT))
        return len(batch)

    def clock_ns(self) -> None:
        return None

    def end_ns(self) -> int:
        return self._memory.end_ns

    def snapshot(self, at_ns: int | None = None) -> Snapshot:
        moment_ns = self._reached_ns() if at_ns is None else at_ns
        histograms, activity = self._memory.totals(moment_ns)
        return Snapshot(
            histograms=histograms,
            inflight=self._memory.inflight(moment_ns),
            counters={"events": self._position, "trace_lost": self._trace.lost},
            wall_offset_ns=int(self._trace.meta.get("wall_offset_ns", 0)),
            source={"kind": "replay", "trace": self._trace.name, "recording": self._trace.meta},
            activity=activity,
            hosts=self._memory.hosts(),
        )

    def arm_bell(self, at_ns: int) -> int | None:
        return self._memory.next_start_ns(at_ns)

    def bell_armed(self) -> bool:
        return True  # it never rings: `arm_bell` has said when the next command starts

    def cifs_texts(self, at_ns: int) -> CifsTexts:
        return self._memory.cifs_texts(at_ns)

    def apply(self, settings: NDArray[np.void]) -> None:
        """A trace is replayed with the settings it was opened with."""

    def close(self) -> None:
        """Nothing is held open."""

    def _reached_ns(self) -> int:
        return int(self._times[self._position - 1]) if self._position else self._memory.begin_ns

    def _due(self) -> int:
        if self._speed <= 0 or self._started is None:
            return len(self._events)
        elapsed_ns = (time.monotonic() - self._started) * 1e9 * self._speed
        return int(np.searchsorted(self._times, self._memory.begin_ns + elapsed_ns, side="right"))
