"""Reads the BPF ring buffer as NumPy arrays: no system call, no Python per event.

Layout as the kernel maps it (kernel/bpf/ringbuf.c): a page with the consumer's position, a page
with the producer's, then the data twice, so that no record is cut at the end. A record is a
header of 8 bytes (u32 length with two flag bits, u32 page offset) and its payload, here always
one 64-byte event. Python issues no memory barriers; x86-64 orders these loads by itself.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from bpf import abi

HEADER_BYTES = 8
EVENT_BYTES = abi.EVENT.itemsize
RECORD_BYTES = HEADER_BYTES + EVENT_BYTES
# Opaque items are copied whole; a structured dtype would be copied field by field.
RAW_EVENT = np.dtype(f"V{EVENT_BYTES}")
RECORD = np.dtype([("length", np.uint32), ("page", np.uint32), ("event", RAW_EVENT)])
BUSY = 1 << 31
DISCARDED = 1 << 30

Buffer: TypeAlias = mmap.mmap | bytearray
RawEvents: TypeAlias = NDArray[np.void]


class RingReader:
    """The consuming end of one ring; a single thread may call `drain`.

    ``consumer`` is the writable first page, ``producer`` the read-only mapping of the second page
    and the doubled data. ``bad_records`` counts what the ring held instead of events: discarded
    records, and an estimate of the events lost when headers or positions made no sense.
    """

    def __init__(self, consumer: Buffer, producer: Buffer, size: int) -> None:
        self._consumer = np.frombuffer(consumer, np.uint64, 1)
        self._producer = np.frombuffer(producer, np.uint64, 1)
        self._data: Buffer = producer
        self._size = size
        self.bad_records = 0

    def pending(self) -> int:
        """Records waiting, those still being written included."""
        waiting = int(self._producer[0]) - int(self._consumer[0])
        return min(max(waiting, 0), self._size) // RECORD_BYTES

    def drain(self, take: Callable[[RawEvents], None], most: int) -> int:
        """Pass up to ``most`` waiting events on and free their space; returns how many.

        ``take`` gets a view of 64-byte items (`RAW_EVENT`, the bytes of `bpf.abi.EVENT`); it is
        valid only during the call, so it copies what it keeps.
        """
        start, end = int(self._consumer[0]), int(self._producer[0])
        if not 0 <= end - start <= self._size or start % 8 or end % 8:
            self._skip_to(end - end % 8, lost_bytes=self._size)
            return 0
        count = min((end - start) // RECORD_BYTES, most)
        if count == 0:
            if end != start:
                self._skip_to(end, lost_bytes=end - start)
            return 0
        records = self._records(start, count)
        if not (records["length"] == EVENT_BYTES).all():
            count = self._clean_prefix(records["length"], start, end)
        if count:
            take(records["event"][:count])
            self._consumer[0] = start + count * RECORD_BYTES
        return count

    def close(self) -> None:
        """Let go of the mappings, so that their owner can unmap them."""
        empty = np.zeros(1, np.uint64)
        self._consumer, self._producer, self._data = empty, empty.copy(), bytearray()

    def _records(self, start: int, count: int) -> NDArray[np.void]:
        offset = mmap.PAGESIZE + start % self._size
        return np.frombuffer(self._data, RECORD, count, offset)

    def _clean_prefix(self, lengths: NDArray[np.uint32], start: int, end: int) -> int:
        """Events before the first record that is none; passes over that one if it stands first."""
        count = int(np.argmax(lengths != EVENT_BYTES))
        length = int(lengths[count])
        if count or length & BUSY:
            return count
        if length == EVENT_BYTES | DISCARDED:
            self._skip_to(start + RECORD_BYTES, lost_bytes=RECORD_BYTES)
        else:
            self._skip_to(end, lost_bytes=end - start)
        return 0

    def _skip_to(self, position: int, lost_bytes: int) -> None:
        self.bad_records += max(1, lost_bytes // RECORD_BYTES)
        self._consumer[0] = position
