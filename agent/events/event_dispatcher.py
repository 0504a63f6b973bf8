"""Moves events from the source into the flight recorder, in batches worth waking up for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

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
    """Owns the source: opens it, drains it, closes it.

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
        self._last_snapshot = empty_snapshot()
        self._batches = 0
        self._sources_opened = 0
        self.beats = 0

    def run(self) -> None:
        """Dispatch until told to stop or the source has no more; then take what is left."""
        if self._stop.is_set():
            return
        source = self._open_source(self._stop)
        if source is None:
            return
        self._source = source
        self._sources_opened += 1
        try:
            while not self._stop.is_set() and not source.finished:
                self.beats += 1
                source.wait()
                if source.pending():
                    self._gather(source)
                # Also when nothing countable waits: a ring that makes no sense must not keep
                # waking this loop.
                self._drain(source)
            self._drain_rest(source)
        finally:
            self._last_snapshot = source.snapshot()
            self._source = None
            source.close()

    def wake(self) -> None:
        """Make the loop come round, which `beats` then shows; also how it notices a stop."""
        source = self._source
        if source:
            source.wake()

    @property
    def dispatching(self) -> bool:
        """Whether the loop runs: not while a source is being opened, or waited for."""
        return self._source is not None

    def snapshot(self) -> Snapshot:
        """The current source's memory, else the last one's; from any thread."""
        source = self._source
        return source.snapshot() if source else self._last_snapshot

    def statistics(self) -> DispatcherStatistics:
        """A consistent-enough copy of the counts, from any thread."""
        return DispatcherStatistics(self._recorder.appended, self._batches, self._sources_opened)

    def _gather(self, source: EventSource) -> None:
        """Wait for a batch: enough events or long enough, then a moment more for stragglers."""
        step_sec = self._config.batch_max_wait_sec / GATHERING_STEPS
        for _ in range(GATHERING_STEPS):
            if source.pending() >= self._config.batch_min_events or self._stop.wait(step_sec):
                break
        self._stop.wait(self._config.batch_linger_sec)

    def _drain(self, source: EventSource) -> int:
        count = source.drain(self._recorder)
        self._batches += count > 0
        return count

    def _drain_rest(self, source: EventSource) -> None:
        while self._drain(source):
            pass
