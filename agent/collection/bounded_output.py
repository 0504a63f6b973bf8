"""A file that takes any amount and keeps the beginning and the end of it."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO

from agent.storage.durable_file import create_exclusive, open_plain

# The line that stands for what is not kept, with its line breaks, is no longer than this.
MARKER_BYTES = 64
COPY_BYTES = 1 << 18
# A longer line is cut between two words.
LINE_BYTES = 1 << 16
_BETWEEN_WORDS = re.compile(rb"[\s\x00\"']")


def cut_marker(count: int) -> bytes:
    """The line that stands in a file for ``count`` bytes that are not there."""
    return f"\n... {count:,} bytes cut here ...\n".encode()


class BoundedOutput:
    """Takes bytes into the new file ``path`` and keeps at most ``max_bytes``.

    With ``keep_tail``: the first half and the last half, whole lines, with one between them that
    says how much is missing: part of a line can be part of a secret that nothing tells any more.
    Without (a file whose middle nobody could find again): the first bytes. One thread at a time;
    every method raises OSError when the disk does not take it.
    """

    def __init__(self, path: Path, max_bytes: int, keep_tail: bool = True) -> None:
        self._path = path
        self._keep_tail = keep_tail
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
        missing = max(0, self._received - self._head_bytes - self._tail_bytes)
        told = missing
        if missing and self._keep_tail:
            told += self._drop_part_of_line()
        if self._tail is not None:
            self._append_tail(self._tail, missing, told)
        return self._path.lstat().st_size

    def _drop_part_of_line(self) -> int:
        """Bytes taken from the end of the beginning."""
        with os.fdopen(open_plain(self._path), "rb") as head:
            head.seek(max(0, self._head_bytes - LINE_BYTES))
            text = head.read()
        dropped = len(text) - _whole_lines(text)
        self._head.seek(self._head_bytes - dropped)
        self._head.truncate()
        return dropped

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

    def _append_tail(self, tail: IO[bytes], start: int, missing: int) -> None:
        """The ring's bytes from ``start`` on, below a line that tells how many are missing."""
        end = self._received - self._head_bytes
        if missing:
            text = b"".join(self._ring(tail, start, min(end, start + LINE_BYTES)))
            partial = rest_of_line(text)
            _write_all(self._head.fileno(), memoryview(cut_marker(missing + partial)))
            start += partial
        for part in self._ring(tail, start, end):
            _write_all(self._head.fileno(), memoryview(part))

    def _ring(self, tail: IO[bytes], start: int, end: int) -> Iterator[bytes]:
        """What came from ``start`` to ``end``, counted from the end of the beginning."""
        while start < end:
            position = start % self._tail_bytes
            tail.seek(position)
            part = tail.read(min(end - start, self._tail_bytes - position, COPY_BYTES))
            yield part
            start += len(part)


def _whole_lines(text: bytes) -> int:
    """The length of ``text`` without the line that breaks off, and the line break before it."""
    line_end = text.rfind(b"\n")
    if line_end >= 0:
        return line_end
    return max((between.start() for between in _BETWEEN_WORDS.finditer(text)), default=0)


def rest_of_line(text: bytes) -> int:
    """The length of the line in whose midst ``text`` begins."""
    line_end = text.find(b"\n")
    if line_end >= 0:
        return line_end + 1
    between = _BETWEEN_WORDS.search(text)
    return between.end() if between else len(text)


def _write_all(descriptor: int, data: memoryview) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
