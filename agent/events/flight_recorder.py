"""The flight recorder: the last events, always at hand, and the way from dispatcher to watcher."""

from __future__ import annotations

import threading

import numpy as np
from numpy.typing import NDArray

from agent.kernel.ring_buffer import RAW_EVENT, RawEvents
from bpf import abi


class FlightRecorder:
    """A preallocated ring of events with one writer and one following reader.

    Events are numbered from 0 in the order of arrival; ``appended`` is the next number. The
    writer waits while the reader is a whole recorder behind, so what the reader sees is never
    overwritten under it; what then does not fit is lost in the kernel's ring, which counts it.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.appended = 0
        self.closed = False
        self._events = np.zeros(capacity, abi.EVENT)
        self._raw = self._events.view(RAW_EVENT)
        self._claimed = 0
        self._released = 0
        self._poked = False
        self._changed = threading.Condition()

    def append(self, raw: RawEvents) -> None:
        """Copy ``raw`` events in; any number. Blocks while the reader is too far behind."""
        done = 0
        while done < len(raw):
            place = self.appended % self.capacity
            count = min(len(raw) - done, self.capacity - place, self._wait_for_room())
            self._claimed = self.appended + count
            self._raw[place : place + count] = raw[done : done + count]
            done += count
            with self._changed:
                self.appended += count
                self._changed.notify_all()

    def wait_beyond(self, position: int, timeout_sec: float | None = None) -> int:
        """Block until an event ``position`` exists, the recorder closes, `poke` is called or the
        time is over; without a timeout it costs no wake-up.

        Returns the number after the newest event.
        """
        with self._changed:
            self._changed.wait_for(
                lambda: self.appended > position or self.closed or self._poked, timeout_sec
            )
            self._poked = False
            return self.appended

    def view(self, first: int, end: int) -> NDArray[np.void]:
        """Events from ``first`` on, up to ``end`` or the seam of the ring, without a copy.

        The reader's own: valid until it releases them.
        """
        place = first % self.capacity
        return self._events[place : place + min(end - first, self.capacity - place)]

    def release(self, position: int) -> None:
        """The reader is done with everything before ``position``."""
        with self._changed:
            self._released = position
            self._changed.notify_all()

    def history(self, end: int) -> NDArray[np.void]:
        """A copy of all recorded events before number ``end`` (at most ``appended``), oldest first;
        from any thread.
        """
        first = max(0, self._claimed - self.capacity)
        place = first % self.capacity
        newest = self._events[place : place + max(0, end - first)]
        rest = max(0, end - first) - len(newest)
        copy = np.concatenate([newest, self._events[:rest]])
        # What the writer claimed meanwhile, it may have overwritten: that is left out.
        return copy[max(0, self._claimed - self.capacity - first) :]

    def poke(self) -> None:
        """Make the reader come round once: now if it waits, else at its next wait."""
        with self._changed:
            self._poked = True
            self._changed.notify_all()

    def close(self) -> None:
        """No more events: the reader takes what is there and ends."""
        with self._changed:
            self.closed = True
            self._changed.notify_all()

    def _wait_for_room(self) -> int:
        with self._changed:
            self._changed.wait_for(
                lambda: self.appended - self._released < self.capacity or self.closed
            )
            return self.capacity - (self.appended - self._released) or self.capacity
