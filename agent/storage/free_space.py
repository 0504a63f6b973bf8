"""The floor under the free space of the spool's file system: the disk is the customer's."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from pathlib import Path

MEGABYTE = 1 << 20


class DiskNearlyFullError(OSError):
    """Another bundle would take space that the host's own work may need. ``errno`` is ENOSPC."""

    def __init__(self, path: Path, free_bytes: int, floor_bytes: int) -> None:
        super().__init__(
            errno.ENOSPC,
            f"only {free_bytes / MEGABYTE:.1f} MB are free on the file system, less than "
            f"cleanup.min_free_mb ({floor_bytes / MEGABYTE:g}): no bundle is made; make room "
            "there, have aod-shipper deliver what waits, or set another floor",
            str(path),
        )


@dataclass(frozen=True)
class DiskSpace:
    """Bytes that an ordinary user may still take, and the floor (0: none).

    ``fault`` says why the file system cannot be asked (``free_bytes`` is None then).
    """

    free_bytes: int | None
    floor_bytes: int
    fault: str = ""

    @property
    def missing_bytes(self) -> int:
        """So much more has to be free; 0 when enough is, or nobody knows."""
        return 0 if self.free_bytes is None else max(0, self.floor_bytes - self.free_bytes)


class FreeSpace:
    """Asks the file system of ``directory``; while that is missing, of the nearest one above.

    Any thread may call it; one system call each time.
    """

    def __init__(self, directory: Path, min_free_mb: float) -> None:
        self._directory = directory
        self.min_free_mb = min_free_mb

    def look(self) -> DiskSpace:
        """How it stands now. Does not raise OSError."""
        floor_bytes = int(self.min_free_mb * MEGABYTE)
        try:
            return DiskSpace(_free_bytes(self._directory), floor_bytes)
        except OSError as error:
            return DiskSpace(None, floor_bytes, str(error))

    def room_for_bundle(self, wanted_bytes: int = 0) -> None:
        """Raise `DiskNearlyFullError` while less than the floor is free, or would be after another
        ``wanted_bytes``; call it before staging. Without a floor there is room.

        A file system that cannot be asked is no reason to do without evidence.
        """
        space = self.look()
        if space.free_bytes is None or not space.floor_bytes:
            return
        if space.free_bytes < space.floor_bytes + wanted_bytes:
            raise DiskNearlyFullError(self._directory, space.free_bytes, space.floor_bytes)


def _free_bytes(directory: Path) -> int:
    try:
        status = os.statvfs(directory)
    except FileNotFoundError:
        if directory == directory.parent:
            raise
        return _free_bytes(directory.parent)
    return status.f_bavail * status.f_frsize
