"""``inbox/<host>``: a spool, and beside it the folder into which the host's rsync writes."""

from __future__ import annotations

import fcntl
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from agent.storage import durable_file
from agent.storage.spool import ARCHIVE, Spool
from shipper.relay.refusal import Refusal

# Open to the group: the central shipper is another user, and removes what it has shipped.
DIRECTORY_MODE = 0o2770
STALE_SEC = 86_400
PARTIALS_KEPT = 16
LOCK_PATIENCE_SEC = 5.0

_LOCK_POLL_SEC = 0.05


@dataclass(frozen=True)
class Usage:
    """What lies there: plain files, and the bytes they take on the disk."""

    size: int = 0
    files: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(self.size + other.size, self.files + other.files)


class HostFolder:
    """The folder of ``host`` (a safe name) below ``inbox``, which has to exist."""

    def __init__(self, inbox: Path, host: str) -> None:
        self.inbox = inbox
        self.host = host
        self.root = inbox / host
        self.incoming = self.root / "incoming"
        self.spool = Spool(self.root)
        self.heartbeat = self.root / "heartbeat.json"
        self.accepted_mark = self.root / "accepted"

    def prepare(self) -> None:
        """Make what is missing. Raises OSError, and Refusal when the relay was never set up."""
        if not self.inbox.is_dir():
            raise Refusal(
                "relay",
                f"there is no directory {self.inbox} on the central host",
                "set the relay up as docs/relay.md says",
            )
        for directory in (self.root, self.incoming, self.spool.batches):
            if not directory.is_dir():
                durable_file.make_directory(directory, DIRECTORY_MODE)
                directory.chmod(DIRECTORY_MODE)

    @contextmanager
    def locked(self) -> Iterator[int]:
        """Hold the folder against the host's other sessions; the descriptor that holds it.

        Whoever inherits the descriptor holds it too. Raises Refusal (busy).
        """
        descriptor = os.open(self.incoming, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._wait_for(descriptor)
            yield descriptor
        finally:
            os.close(descriptor)

    def _wait_for(self, descriptor: int) -> None:
        deadline = time.monotonic() + LOCK_PATIENCE_SEC
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise Refusal(
                        "busy",
                        f"another session of {self.host} is at work",
                        "it ends by itself, when its connection is dead after a minute",
                    ) from None
            time.sleep(_LOCK_POLL_SEC)

    def partial(self, bundle_id: str) -> Path:
        """Where rsync writes the archive of a bundle."""
        return self.incoming / f"{bundle_id}{ARCHIVE}"

    def tidy(self) -> None:
        """Remove what killed sessions left, except the newest parts of a day: those are resumed.

        What is no plain file, or has a second name, goes at once: rsync writes in place. To be
        called with the lock held. Raises OSError.
        """
        self.spool.recover()
        with os.scandir(self.incoming) as entries:
            found = [(entry.stat(follow_symlinks=False), Path(entry.path)) for entry in entries]
        oldest = time.time() - STALE_SEC
        parts = [
            (status.st_mtime, path)
            for status, path in found
            if stat.S_ISREG(status.st_mode) and status.st_nlink == 1 and status.st_mtime >= oldest
        ]
        kept = {path for _, path in sorted(parts)[-PARTIALS_KEPT:]}
        for status, path in found:
            if stat.S_ISDIR(status.st_mode):
                path.rmdir()
            elif path not in kept:
                path.unlink(missing_ok=True)

    def committed(self) -> Usage:
        """What was accepted and is still here. Raises OSError."""
        return usage_of(self.spool.batches)

    def under_way(self) -> Usage:
        """What came and is not accepted. Raises OSError."""
        return usage_of(self.incoming)


def usage_of(directory: Path) -> Usage:
    """Of the files in ``directory``; what vanishes meanwhile is not counted. Raises OSError."""
    size = files = 0
    with os.scandir(directory) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):
                status = entry.stat(follow_symlinks=False)
                size += max(status.st_size, status.st_blocks * 512)
                files += 1
    return Usage(size, files)
