"""A ring buffer in plain memory, laid out as the kernel maps one."""

from __future__ import annotations

import mmap

import numpy as np

from agent.kernel.ring_buffer import HEADER_BYTES, RECORD_BYTES, RingReader
from bpf import abi


class FakeRing:
    """The producing end: what the kernel would do, byte for byte."""

    def __init__(self, size: int = 1 << 16) -> None:
        self.size = size
        self.consumer = bytearray(mmap.PAGESIZE)
        self.producer = bytearray(mmap.PAGESIZE + 2 * size)
        self.reader = RingReader(self.consumer, self.producer, size)

    @property
    def consumed(self) -> int:
        return int.from_bytes(self.consumer[:8], "little")

    @property
    def produced(self) -> int:
        return int.from_bytes(self.producer[:8], "little")

    def put(self, payload: bytes, header: int | None = None) -> int:
        """Append a record (``header`` replaces the right one); its position."""
        position = self.produced
        word = len(payload) if header is None else header
        record = word.to_bytes(4, "little") + bytes(4) + payload
        for index, byte in enumerate(record):
            self._set(position + index, byte)
        self.move_producer(position + (len(record) + 7) // 8 * 8)
        return position

    def put_events(self, events: np.ndarray) -> None:
        for event in events:
            self.put(event.tobytes())

    def set_header(self, position: int, header: int) -> None:
        for index, byte in enumerate(header.to_bytes(4, "little")):
            self._set(position + index, byte)

    def header_at(self, position: int) -> int:
        place = mmap.PAGESIZE + position % self.size
        return int.from_bytes(self.producer[place : place + 4], "little")

    def move_producer(self, position: int) -> None:
        self.producer[:8] = (position % 2**64).to_bytes(8, "little")

    def start_at(self, position: int) -> None:
        self.consumer[:8] = position.to_bytes(8, "little")
        self.move_producer(position)

    def drain(self, most: int = 1 << 20) -> np.ndarray:
        """Everything the reader passes on in one call."""
        taken: list[np.ndarray] = []
        self.reader.drain(lambda raw: taken.append(raw.copy()), most)
        return np.concatenate(taken).view(abi.EVENT) if taken else np.zeros(0, abi.EVENT)

    def _set(self, position: int, byte: int) -> None:
        place = mmap.PAGESIZE + position % self.size
        self.producer[place] = byte
        self.producer[place + self.size] = byte


assert HEADER_BYTES + abi.EVENT.itemsize == RECORD_BYTES
