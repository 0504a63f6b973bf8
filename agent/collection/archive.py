"""Packs a directory into a tar.zst: streamed, and the same bytes for the same files."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import zstandard

from agent.collection.manifest import FIRST_MEMBER
from agent.storage.durable_file import UnsafeFileError, create_exclusive, open_plain

# What every tar can hold in its first form, and no terminal, shell or file system minds.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+=@,-]{0,99}")
_MAX_MEMBER_BYTES = (8 << 30) - 1
_COPY_BYTES = 1 << 18


@dataclass(frozen=True)
class PackedArchive:
    """Size in bytes and SHA-256 (hex) of a finished archive."""

    size: int
    sha256: str


class HashingWriter:
    """Passes bytes on to ``file`` and knows their count and digest so far."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self._size = 0

    def write(self, data: bytes) -> int:
        """Write all of ``data``."""
        self._digest.update(data)
        self._size += len(data)
        return self._file.write(data)

    def flush(self) -> None:
        """Push buffered bytes to the file."""
        self._file.flush()

    def summary(self) -> PackedArchive:
        """What was written until now."""
        return PackedArchive(self._size, self._digest.hexdigest())


def pack(
    directory: Path, target: Path, level: int, time_sec: int, threads: int = 0
) -> PackedArchive:
    """Pack the plain files of ``directory`` into the new file ``target``.

    Members are named ``<directory's name>/<file>``, `FIRST_MEMBER` first, the others by name;
    owner, mode and time (``time_sec``) are fixed. ``threads`` compress beside this one; with 0 it
    does so itself. The bytes depend on files, ``level`` and whether there are such threads, not
    on their number.

    Raises `UnsafeFileError` for a name or a file that has no place in a bundle, before anything
    is written where the name tells; OSError, after which ``target`` may be partial.
    """
    paths = sorted(directory.iterdir(), key=_member_order)
    for name in (directory.name, *(path.name for path in paths)):
        _check_name(name)
    compressor = zstandard.ZstdCompressor(level=level, write_checksum=True, threads=threads)
    with os.fdopen(create_exclusive(target), "wb") as file:
        writer = HashingWriter(file)
        with (
            compressor.stream_writer(writer, closefd=False) as stream,  # type: ignore[arg-type]
            tarfile.TarFile(
                fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT, copybufsize=_COPY_BYTES
            ) as tar,
        ):
            for path in paths:
                _add(tar, path, f"{directory.name}/{path.name}", time_sec)
    return writer.summary()


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise UnsafeFileError(errno.EINVAL, "is no name for a file of a bundle", ascii(name))


def _member_order(path: Path) -> tuple[bool, str]:
    return (path.name != FIRST_MEMBER, path.name)


def _add(tar: tarfile.TarFile, path: Path, name: str, time_sec: int) -> None:
    member = tarfile.TarInfo(name)
    with os.fdopen(open_plain(path), "rb") as file:
        member.size = os.fstat(file.fileno()).st_size
        if member.size > _MAX_MEMBER_BYTES:
            raise OSError(errno.EFBIG, "is too large for a bundle", str(path))
        member.mode = 0o640
        member.mtime = time_sec
        tar.addfile(member, file)
