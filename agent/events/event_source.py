"""Where events come from: the kernel's ring, or a recorded trace through the same pipeline."""

from __future__ import annotations

import os
import select
import threading
import time
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from agent.cifs.state import CifsTexts, read_texts
from agent.configuration.settings_document import printable
from agent.events.activity import no_activity
from agent.events.flight_recorder import FlightRecorder
from agent.kernel.probe import Probe
from agent.kernel.ring_buffer import RingReader
from bpf import abi

DRAIN_LIMIT = 16_384
# A sick session can keep the kernel from listing it; detection waits no longer than this.
STATE_TIMEOUT_SEC = 1.0


@dataclass(frozen=True)
class Snapshot:
    """A copy of what the source knows beside its events.

    ``wall_offset_ns`` added to an event's time gives wall-clock time. ``activity`` is a table of
    `abi.ACTIVITY`, for `agent.events.activity`. ``hosts`` has the server's name, printable, by the
    number of a connection that was lost.
    """

    histograms: NDArray[np.uint64]
    inflight: NDArray[np.void]
    counters: dict[str, int]
    wall_offset_ns: int
    source: dict[str, object] = field(default_factory=dict)
    activity: NDArray[np.void] = field(default_factory=no_activity)
    hosts: dict[int, str] = field(default_factory=dict)


class EventSource(Protocol):
    """One thread waits and drains; the rest may be called from any, and after `close` too."""

    @property
    def finished(self) -> bool:
        """Whether there will never be another event."""

    def wait(self) -> None:
        """Block until events are there or `wake` is called."""

    def wake(self) -> None:
        """End the wait."""

    def pending(self) -> int:
        """Events that `drain` would find."""

    def drain(self, recorder: FlightRecorder) -> int:
        """Move a batch of waiting events into ``recorder``; how many."""

    def apply(self, settings: NDArray[np.void]) -> None:
        """Let events through as ``settings`` (one `abi.SETTINGS`) says; its bell is ignored."""

    def arm_bell(self, at_ns: int) -> int | None:
        """Let the next command that is sent put a record (`abi.TOOL_BELL`) among the events.

        A command is missed neither by this bell nor by a `snapshot` that is taken after it. A
        source that knows what comes after ``at_ns`` returns when that command is sent, instead.
        """

    def bell_armed(self) -> bool:
        """Whether no command was sent since `arm_bell`; False once closed."""

    def clock_ns(self) -> int | None:
        """Now, by the clock of the events' times; None: the events alone tell the time."""

    def end_ns(self) -> int | None:
        """When everything will have happened, for a source without a clock."""

    def cifs_texts(self, at_ns: int) -> CifsTexts:
        """What the kernel says of its servers, as of ``at_ns`` where a source can look back.

        Blocks for `STATE_TIMEOUT_SEC` and a moment at most.
        """

    def snapshot(self, at_ns: int | None = None) -> Snapshot:
        """Histograms, unanswered commands, counters and activity as of now.

        A source that can look back shows them as of ``at_ns`` of `clock_ns` instead.
        """

    def close(self) -> None:
        """Release what the source holds; a second call does nothing."""


class KernelSource:
    """The live source: maps of the loaded kernel program."""

    finished = False

    def __init__(self, probe: Probe) -> None:
        self._probe = probe
        self._reader = RingReader(probe.ring_consumer, probe.ring_producer, probe.ring_size)
        self._lock = threading.Lock()
        self._closed = False
        self._last = empty_snapshot()
        self._wake_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._epoll = select.epoll()
        self._epoll.register(probe.ring_fd, select.EPOLLIN)
        self._epoll.register(self._wake_fd, select.EPOLLIN)

    def wait(self) -> None:
        for descriptor, _ in self._epoll.poll():
            if descriptor == self._wake_fd:
                os.eventfd_read(self._wake_fd)

    def wake(self) -> None:
        with self._lock:
            if not self._closed:
                os.eventfd_write(self._wake_fd, 1)

    def pending(self) -> int:
        return self._reader.pending()

    def drain(self, recorder: FlightRecorder) -> int:
        return self._reader.drain(recorder.append, DRAIN_LIMIT)

    def apply(self, settings: NDArray[np.void]) -> None:
        with self._lock:
            if not self._closed:
                for member in ("slow_ns", "error_tracked", "reconnects"):
                    self._probe.settings[member] = settings[member]

    def arm_bell(self, at_ns: int) -> int | None:
        # On x86-64 releasing the lock keeps the store before all later looks at the slots.
        with self._lock:
            if not self._closed:
                self._probe.settings["bell"] = 1
        return None

    def bell_armed(self) -> bool:
        with self._lock:
            return not self._closed and bool(self._probe.settings["bell"][0])

    def clock_ns(self) -> int | None:
        return time.monotonic_ns()

    def end_ns(self) -> int | None:
        return None

    def cifs_texts(self, at_ns: int) -> CifsTexts:
        return read_texts(STATE_TIMEOUT_SEC)

    def snapshot(self, at_ns: int | None = None) -> Snapshot:
        with self._lock:
            return self._last if self._closed else self._copy()

    def close(self) -> None:
        with self._lock:
            if self._closed:
                return
            # Nothing is under way any more that anybody watches.
            self._last = replace(self._copy(), inflight=np.zeros(0, abi.INFLIGHT))
            self._closed = True
            self._epoll.close()
            os.close(self._wake_fd)
            self._reader.close()
            self._probe.close()

    def _copy(self) -> Snapshot:
        inflight = self._probe.inflight
        waiting = inflight[inflight["start_ns"] != 0]
        return Snapshot(
            histograms=self._probe.histograms.copy(),
            # What was answered between the look and the copy is gone by now.
            inflight=waiting[waiting["start_ns"] != 0],
            counters=self._counters(),
            wall_offset_ns=time.time_ns() - time.monotonic_ns(),
            source={"kind": "kernel", **self._probe.description},
            activity=self._probe.activity.copy(),
            hosts=self._hosts(),
        )

    def _counters(self) -> dict[str, int]:
        counters = {name: int(self._probe.counters[name][0]) for name in abi.COUNTERS.names or ()}
        return {**counters, "bad_records": self._reader.bad_records}

    def _hosts(self) -> dict[int, str]:
        connections = self._probe.connections
        lost = connections[connections["conn_id"] != 0]
        return {int(c["conn_id"]): printable(c["hostname"].decode(errors="replace")) for c in lost}


def empty_snapshot() -> Snapshot:
    """What is known while no source is open: nothing."""
    return Snapshot(
        histograms=np.zeros((abi.COMMANDS, abi.BUCKETS), np.uint64),
        inflight=np.zeros(0, abi.INFLIGHT),
        counters={},
        wall_offset_ns=time.time_ns() - time.monotonic_ns(),
    )
