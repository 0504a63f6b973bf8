"""The one way in which files become visible: whole, durable, or not at all.

What it does not promise: that a file is durable before the call returns, or that two writers of
one name are ordered. After a crash a leftover ``.*.tmp`` may remain; it is never a finished file.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

TEMPORARY_SUFFIX = ".tmp"
FILE_MODE = 0o640


class UnsafeFileError(OSError):
    """A file in a shared directory is not a plain file (a link, a device, a pipe)."""


def temporary_beside(final: Path) -> Path:
    """A fresh hidden name in the directory of ``final``, from which a rename is atomic."""
    return final.with_name(f".{final.name}.{os.urandom(4).hex()}{TEMPORARY_SUFFIX}")


def create_exclusive(path: Path, mode: int = FILE_MODE) -> int:
    """File descriptor of a new file at ``path``; an existing one or a link is an error."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)


@contextmanager
def whole_file(final: Path, mode: int = FILE_MODE) -> Iterator[IO[bytes]]:
    """A file to write that becomes ``final`` at the end of the block, replacing what was there:
    whole also after a crash. When the block raises, nothing changed. The name is durable only
    after `sync_directory`."""
    temporary = temporary_beside(final)
    try:
        with os.fdopen(create_exclusive(temporary, mode), "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(final)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def publish_bytes(final: Path, data: bytes, mode: int = FILE_MODE) -> None:
    """Write ``data`` to ``final`` atomically and durably, replacing what was there."""
    with whole_file(final, mode) as file:
        file.write(data)
    sync_directory(final.parent)


def publish_file(temporary: Path, final: Path) -> None:
    """Make the finished file ``temporary`` durable under the name ``final`` (same directory)."""
    descriptor = os.open(temporary, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    temporary.rename(final)
    sync_directory(final.parent)


def make_directory(path: Path, mode: int = 0o777) -> None:
    """Make the directory ``path``, and with the default mode the parents it lacks, durably.

    One that is there is made durable: who made it may have been killed before that.
    """
    if not path.is_dir():
        if not path.parent.is_dir():
            make_directory(path.parent)
        path.mkdir(mode, exist_ok=True)
    with suppress(PermissionError):  # a parent that may not be read is none that we made
        sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make renames and removals in ``path`` durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def open_plain(path: Path, access: int = os.O_RDONLY) -> int:
    """Descriptor of a plain file; links are not followed, devices and pipes refused.

    ``access`` is O_RDONLY or O_RDWR. Raises `UnsafeFileError` for anything but a plain file,
    OSError as ``open`` does.
    """
    try:
        descriptor = os.open(path, access | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if path.is_symlink():
            raise UnsafeFileError(error.errno, "is a symbolic link", str(path)) from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise UnsafeFileError(f"{path} is not a plain file")
    return descriptor


def read_plain(path: Path, limit: int = 16 << 20) -> bytes:
    """Content of the plain file ``path``, at most ``limit`` bytes."""
    with os.fdopen(open_plain(path), "rb") as file:
        return file.read(min(limit, os.fstat(file.fileno()).st_size))  # no buffer of ``limit``
