"""Who holds the lock of a spool: asked by those that only look on."""

from __future__ import annotations

import contextlib
import fcntl
import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Holder:
    """A shipper at work; ``process`` is its id, None where the kernel does not tell this user."""

    process: int | None

    def __str__(self) -> str:
        return f"process {self.process}" if self.process else "another aod-shipper"


def find_holder(directory: Path) -> Holder | None:
    """Whose `SpoolLock` on ``directory`` is held now; None when it is nobody's,
    or there is no such directory. Raises OSError when it may not be opened.

    The kernel's list is asked first. Only where it shows nobody, which it also does for a holder
    in another container, the lock is tried for an instant.
    """
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        process = holding_process(descriptor)
        if process is None:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return None
    except BlockingIOError:
        return Holder(None)
    finally:
        os.close(descriptor)
    return Holder(process)


def holding_process(descriptor: int) -> int | None:
    """Who has the lock on the file behind ``descriptor``, as far as the kernel tells this user."""
    status = os.fstat(descriptor)
    device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}"
    with contextlib.suppress(OSError):
        for line in Path("/proc/locks").read_text().splitlines():
            kind, _, _, process, file = line.split()[1:6]
            if (kind, file) == ("FLOCK", f"{device}:{status.st_ino}"):
                return int(process)
    return None
