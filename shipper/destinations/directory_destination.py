"""A directory as bucket: the same keys as in S3, every file whole and durable or not there."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from agent.storage import durable_file
from shipper.destinations.delivery import Delivery
from shipper.destinations.directory_preflight import check_directory
from shipper.destinations.document import Document
from shipper.destinations.finding import Finding
from shipper.destinations.pace import Pace
from shipper.faults import DestinationFault

DIRECTORY_MODE = 0o750

_COPY_SIZE = 1 << 20
_REMEDIES = {
    errno.ENOSPC: "make room on its file system",
    errno.EDQUOT: "raise the quota of the shipper's user",
    errno.EACCES: "give the shipper's user write permission there",
    errno.EPERM: "give the shipper's user write permission there",
    errno.EROFS: "mount it writable, or add it to ReadWritePaths of aod-shipper.service",
    errno.ELOOP: "remove the symbolic link below the destination: links are not followed",
    errno.ENOTDIR: "remove the link or file that stands where a directory must be",
    errno.EISDIR: "remove the directory that stands where a file must be",
}


class DirectoryBucket:
    """Objects as files below ``root``, which is made when missing; links below it are refused.

    ``pace`` holds back the bytes of archives: the directory may lie on another host.
    """

    def __init__(self, root: Path, pace: Pace | None = None) -> None:
        self._root = root
        self._pace = pace

    @property
    def description(self) -> str:
        """The store in words."""
        return f"directory {self._root}"

    def deliver(self, delivery: Delivery) -> str:
        """See `Destination`."""
        archive, manifest = map(PurePosixPath, (delivery.keys.archive, delivery.keys.manifest))
        with self._faults(), self._open_folder(archive.parent) as folder:
            _put_archive(folder / archive.name, delivery, self._pace)
            _put_document(folder / manifest.name, delivery.manifest)
        return self.description

    def put_document(self, document: Document) -> None:
        """See `Destination`."""
        path = PurePosixPath(document.key)
        with self._faults(), self._open_folder(path.parent) as folder:
            _put_document(folder / path.name, document.content)

    def abandon(self, note: Path) -> None:
        """See `Destination`: nothing is ever unfinished here."""

    def check(self) -> Iterator[Finding]:
        """See `shipper.destinations.finding.Preflight`."""
        return check_directory(self._root, DIRECTORY_MODE)

    @contextlib.contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise DestinationFault(
                f"{self.description}: {error.strerror or error}",
                _REMEDIES.get(error.errno or 0, "look at the disk and the kernel log"),
            ) from error

    @contextlib.contextmanager
    def _open_folder(self, folder: PurePosixPath) -> Iterator[Path]:
        """A path that means ``folder`` below the root, whatever is renamed or linked meanwhile."""
        durable_file.make_directory(self._root, DIRECTORY_MODE)
        descriptor = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for name in folder.parts:
                inner = _open_inner(descriptor, name)
                os.close(descriptor)
                descriptor = inner
            yield Path(f"/proc/self/fd/{descriptor}")
        finally:
            os.close(descriptor)


def _open_inner(parent: int, name: str) -> int:
    """Descriptor of the directory ``name`` in ``parent``, made when missing.

    One that is there is made durable: who made it may have been killed before that.
    """
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, DIRECTORY_MODE, dir_fd=parent)
    os.fsync(parent)
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(name, flags, dir_fd=parent)


def _put_archive(final: Path, delivery: Delivery, pace: Pace | None) -> None:
    _clear_leftovers(final)
    if _holds(final, bytes.fromhex(delivery.sha256)):
        return
    temporary = durable_file.temporary_beside(final)
    try:
        with (
            delivery.open_archive() as archive,
            os.fdopen(durable_file.create_exclusive(temporary), "wb") as copy,
        ):
            while data := archive.read(_COPY_SIZE):
                if pace is not None:
                    pace.take(len(data))
                copy.write(data)
        durable_file.publish_file(temporary, final)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _put_document(final: Path, document: bytes) -> None:
    _clear_leftovers(final)
    if not _holds(final, hashlib.sha256(document).digest()):
        durable_file.publish_bytes(final, document)


def _clear_leftovers(final: Path) -> None:
    """Remove the temporaries of a run that was killed while it wrote ``final``.

    Nobody else writes it: the key holds the bundle's id, and a spool has one shipper at a time.
    """
    for leftover in final.parent.glob(f".{final.name}.*{durable_file.TEMPORARY_SUFFIX}"):
        leftover.unlink(missing_ok=True)


def _holds(path: Path, sha256: bytes) -> bool:
    """Whether the plain file ``path`` exists with this content, and has been made durable: who
    wrote it may have been killed before that. Anything else gets replaced."""
    digest = hashlib.sha256()
    try:
        with os.fdopen(durable_file.open_plain(path), "rb") as file:
            while data := file.read(_COPY_SIZE):
                digest.update(data)
            if digest.digest() != sha256:
                return False
            os.fsync(file.fileno())
        durable_file.sync_directory(path.parent)
    except OSError:
        return False
    return True
