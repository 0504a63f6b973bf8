"""A piece of an archive as the body of a request."""

from __future__ import annotations

import os

from shipper.destinations.delivery import ArchiveReader
from shipper.destinations.pace import Pace


class ArchivePart:
    """``length`` bytes from ``start`` on, read from the disk as they are needed. One thread.

    botocore reads a body once to sign it and then to send it, so ``pace`` is kept with what is
    read again.
    """

    def __init__(
        self, archive: ArchiveReader, start: int, length: int, pace: Pace | None = None
    ) -> None:
        self._archive = archive
        self._start = start
        self._length = length
        self._pace = pace
        self._position = 0
        self._signed = 0

    def tell(self) -> int:
        """Where the next read begins."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """As of any file."""
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._length}
        self._position = origin[whence] + offset
        return self._position

    def read(self, amount: int = -1) -> bytes:
        """As of any file; raises as `ArchiveReader` does."""
        left = self._length - self._position
        self._archive.seek(self._start + self._position)
        data = self._archive.read(left if amount < 0 else min(amount, left))
        if self._pace is not None and self._position < self._signed:
            self._pace.take(len(data))
        self._position += len(data)
        self._signed = max(self._signed, self._position)
        return data
