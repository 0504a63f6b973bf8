"""A file that takes any amount and keeps the beginning and the end of it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from types import TracebackType
from typing import IO

from agent.storage.durable_file import create_exclusive

# The line that stands for what is not kept, with its line breaks, is no longer than this.
MARKER_BYTES = 64
COPY_BYTES = 1 << 18
# A longer line is cut where it may be.
LINE_BYTES = 1 << 16


def cut_marker(count: int) -> bytes:
    """The line that stands in a file for ``count`` bytes that are not there."""
    return f"\n... {count:,} bytes cut here ...\n".encode()


class BoundedOutput:
    """Takes bytes into the new file ``path`` and keeps at most ``max_bytes``.

    With ``keep_tail``: the first half and the last half, with a line between them that says how
    much is missing; without (a file whose middle nobody could find again): the first bytes. One
    thread at a time; every method raises OSError when the disk does not take it.
    """

    def __init__(self, path: Path, max_bytes: int, keep_tail: bool = True) -> None:
        self._path = path
        self._head_bytes = max_bytes // 2 if keep_tail else max_bytes
        self._tail_bytes = max(0, max_bytes - self._head_bytes - MARKER_BYTES) if keep_tail else 0
        self._head = os.fdopen(create_exclusive(path), "wb", buffering=0)
        self._tail: IO[bytes] | None = None
        self._received = 0

    def __enter__(self) -> BoundedOutput:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._head.close()
        if self._tail is not None:
            self._tail.close()

    @property
    def cut(self) -> bool:
        """Whether more came than is kept."""
        return self._received > self._head_bytes + self._tail_bytes

    @property
    def full(self) -> bool:
        """Whether nothing that comes from now on would be kept."""
        return not self._tail_bytes and self._received > self._head_bytes

    def write(self, data: bytes) -> None:
        """Take ``data``."""
        room = max(0, self._head_bytes - self._received)
        self._received += len(data)
        if room:
            _write_all(self._head.fileno(), memoryview(data)[:room])
        if len(data) > room and self._tail_bytes:
            self._write_tail(memoryview(data)[room:])

    def finish(self) -> int:
        """Put the end behind the beginning; the file's size."""
        if self._tail is not None:
            self._append_tail(self._tail)
        return self._path.lstat().st_size

    def _write_tail(self, data: memoryview) -> None:
        """Into a ring: the last ``_tail_bytes`` are always there."""
        if self._tail is None:
            self._tail = tempfile.TemporaryFile(dir=self._path.parent, buffering=0)  # noqa: SIM115
        position = (self._received - len(data) - self._head_bytes) % self._tail_bytes
        while data:
            part = data[: self._tail_bytes - position]
            self._tail.seek(position)
            _write_all(self._tail.fileno(), part)
            data, position = data[len(part) :], 0

    def _append_tail(self, tail: IO[bytes]) -> None:
        beyond = self._received - self._head_bytes
        missing = beyond - self._tail_bytes
        if missing <= 0:
            self._append(tail, 0, beyond)
            return
        oldest = beyond % self._tail_bytes
        partial = _rest_of_line(tail, oldest)
        _write_all(self._head.fileno(), memoryview(cut_marker(missing + partial)))
        self._append(tail, oldest + partial, self._tail_bytes)
        self._append(tail, 0, oldest)

    def _append(self, tail: IO[bytes], start: int, end: int) -> None:
        tail.seek(start)
        while part := tail.read(min(end - tail.tell(), COPY_BYTES)):
            _write_all(self._head.fileno(), memoryview(part))


def _rest_of_line(tail: IO[bytes], start: int) -> int:
    """Bytes up to the next line: a line without its beginning can lack the word that tells that
    a secret follows. 0 when no line ends there."""
    tail.seek(start)
    return tail.read(LINE_BYTES).find(b"\n") + 1


def _write_all(descriptor: int, data: memoryview) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
