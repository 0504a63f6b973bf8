"""One shipper per spool, and per inbox."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

from agent.storage.durable_file import TEMPORARY_SUFFIX
from agent.storage.spool import EVICTED_SHIPPED, QUARANTINED, SHIPPED, UPLOADING, Spool
from shipper.configuration.schema import ShipperConfig
from shipper.faults import HostFault
from shipper.spools.lock_holder import Holder, holding_process
from shipper.spools.sources import find_sources
from shipper.spools.state_directory import STATE_FILE

_SUFFIXES = (SHIPPED, EVICTED_SHIPPED, QUARANTINED, UPLOADING)
_LEFTOVERS = [
    f".{name}.*{TEMPORARY_SUFFIX}" for name in (*(f"*{suffix}" for suffix in _SUFFIXES), STATE_FILE)
]


class ShippingLock:
    """Holds everything that ``config`` ships, the spool and the inbox, against other shippers.

    Entering, or `take`, raises HostFault while another one has a part of it. One thread.
    """

    def __init__(self, config: ShipperConfig) -> None:
        self._config = config
        self._locks = [SpoolLock(Spool(config.spool).batches, config.spool)]
        if config.inbox is not None:
            self._locks.append(SpoolLock(config.inbox))

    def __enter__(self) -> ShippingLock:
        with contextlib.ExitStack() as stack:
            for lock in self._locks:
                stack.enter_context(lock)
            self._held = stack.pop_all()
        with contextlib.suppress(OSError):  # an inbox that cannot be listed is told of later
            for source in find_sources(self._config):
                _clear_leftovers(source.spool.batches)
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()

    def take(self) -> None:
        """Hold whatever directories have the names now."""
        for lock in self._locks:
            lock.take()


class SpoolLock:
    """Holds ``directory`` (a spool's ``batches``, or an inbox) against other shippers, until left;
    it is called ``title`` in messages.

    The lock is on the directory itself: there is no file that could belong to the wrong user.
    Entering, or `take`, raises HostFault while another shipper has it. One thread.
    """

    def __init__(self, directory: Path, title: Path | None = None) -> None:
        self._directory = directory
        self._title = title or directory
        self._descriptor = -1

    def __enter__(self) -> SpoolLock:
        self.take()
        return self

    def __exit__(self, *_: object) -> None:
        self._release()

    def take(self) -> None:
        """Hold whatever directory has the name now; what a killed shipper left in it goes.

        A directory that cannot be opened is left to whoever lists it.
        """
        try:
            descriptor = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            return
        if self._descriptor >= 0 and os.path.sameopenfile(self._descriptor, descriptor):
            os.close(descriptor)
            return
        self._release()
        self._descriptor = descriptor
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            fault = _refused(self._title, descriptor, error)
            self._release()
            raise fault from error
        _clear_leftovers(self._directory)

    def _release(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _refused(title: Path, descriptor: int, error: OSError) -> HostFault:
    if isinstance(error, BlockingIOError):
        return HostFault(
            f"{_holder(descriptor)} ships {title} already",
            "let it finish, or stop it (the service: systemctl stop aod-shipper)",
        )
    return HostFault(
        f"{title} cannot be locked: {error.strerror}", "keep the spool on a local file system"
    )


def _holder(descriptor: int) -> str:
    return str(Holder(holding_process(descriptor)))


def _clear_leftovers(directory: Path) -> None:
    """What cannot be listed or removed (a sick disk, another user's) is in nobody's way."""
    with contextlib.suppress(OSError):
        for leftover in [path for pattern in _LEFTOVERS for path in directory.glob(pattern)]:
            with contextlib.suppress(OSError):
                leftover.unlink()
