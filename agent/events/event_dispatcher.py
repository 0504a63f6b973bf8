"""Moves events from the source into the flight recorder, in batches worth waking up for."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agent.cifs.state import CifsTexts
from agent.configuration.schema import WatcherConfig
from agent.events.event_source import EventSource, Snapshot, empty_snapshot
from agent.events.flight_recorder import FlightRecorder
from agent.service.stop_signal import StopSignal

GATHERING_STEPS = 10


@dataclass(frozen=True)
class DispatcherStatistics:
    """Counts since start, over every source there was."""

    events: int
    batches: int
    sources_opened: int


class EventDispatcher:
    """Owns the source: opens it, drains it, closes it. A closed one still answers questions.

    ``dispatching``: whether a source is open; not while one is being opened, or waited for.
    ``open_source`` may block until there is something to watch; it returns None when ``stop``
    was set meanwhile, and raises what the supervisor is to report and retry.
    """

    def __init__(
        self,
        config: WatcherConfig,
        open_source: Callable[[StopSignal], EventSource | None],
        recorder: FlightRecorder,
        stop: StopSignal,
    ) -> None:
        self._config = config
        self._open_source = open_source
        self._recorder = recorder
        self._stop = stop
        self._source: EventSource | None = None
        self._settings: NDArray[np.void] | None = None
        self._batches = 0
        self.sources_opened = 0
        self.beats = 0
        self.dispatching = False
        self._detaching = False

    def run(self) -> None:
        """Dispatch until told to stop or the source has no more; then take what is left."""
        while not self._stop.is_set():
            self._detaching = False
            source = self._open_source(self._stop)
            if source is None:
                return
            self._dispatch(source)
            if source.finished:
                return

    def _dispatch(self, source: EventSource) -> None:
        self._source, self.dispatching = source, True
        if self._settings is not None:
            source.apply(self._settings)
        self.sources_opened += 1
        self._recorder.poke()  # whoever follows may have to look at the new source
        try:
            while not (self._stop.is_set() or self._detaching or source.finished):
                self.beats += 1
                source.wait()
                if source.pending():
                    self._gather(source)
                # Also when nothing countable waits: a ring that makes no sense must not keep
                # waking this loop.
                self._drain(source)
            self._drain_rest(source)
        finally:
            source.close()
            self.dispatching = False

    def detach(self) -> None:
        """Close the source soon, with nothing lost, also one that is just being opened; the next
        one is asked for at once."""
        self._detaching = True
        self.wake()

    def reconfigure(self, config: WatcherConfig) -> None:
        """Go by other settings for batches."""
        self._config = config

    def wake(self) -> None:
        """Make the loop come round, which `beats` then shows; also how it notices a stop."""
        source = self._source
        if source:
            source.wake()

    def snapshot(self, at_ns: int | None = None) -> Snapshot:
        """The current source's memory, else the last one's; from any thread."""
        source = self._source
        return source.snapshot(at_ns) if source else empty_snapshot()

    def clock_ns(self) -> int | None:
        """Now, in the time of the events; None for a source whose events alone tell it."""
        source = self._source
        return source.clock_ns() if source else time.monotonic_ns()

    def end_ns(self) -> int | None:
        """When everything had happened, for a source without a clock."""
        source = self._source
        return source.end_ns() if source else None

    def arm_bell(self, at_ns: int) -> int | None:
        """See `EventSource.arm_bell`; without a source there is none."""
        source = self._source
        return source.arm_bell(at_ns) if source else None

    def bell_armed(self) -> bool:
        """Whether no command has started since; True without a source: none ever will."""
        source = self._source
        return source.bell_armed() if source else True

    def cifs_texts(self, at_ns: int) -> CifsTexts:
        """What the kernel says about its servers; may block as long as `EventSource` says."""
        source = self._source
        return source.cifs_texts(at_ns) if source else CifsTexts("", "", "nothing is watched")

    def apply(self, settings: NDArray[np.void]) -> None:
        """Give the kernel program other thresholds: the one that is loaded, and those to come."""
        self._settings = settings
        source = self._source
        if source:
            source.apply(settings)

    def statistics(self) -> DispatcherStatistics:
        """A consistent-enough copy of the counts, from any thread."""
        return DispatcherStatistics(self._recorder.appended, self._batches, self.sources_opened)

    def _gather(self, source: EventSource) -> None:
        """Wait for a batch: enough events or long enough, then a moment more for stragglers."""
        step_sec = self._config.batch_max_wait_sec / GATHERING_STEPS
        for _ in range(GATHERING_STEPS):
            enough = source.pending() >= self._config.batch_min_events
            if enough or self._detaching or self._stop.wait(step_sec):
                break
        self._stop.wait(self._config.batch_linger_sec)

    def _drain(self, source: EventSource) -> int:
        count = source.drain(self._recorder)
        self._batches += count > 0
        return count

    def _drain_rest(self, source: EventSource) -> None:
        while self._drain(source):
            pass
