"""Reads a directory as a bucket."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from agent.storage import durable_file
from shipper.destinations.store_reader import (
    DOCUMENT_LIMIT,
    ReadDeniedFault,
    StoredDocument,
    StoredObject,
)
from shipper.faults import DestinationFault

_READ_SIZE = 1 << 20


class DirectoryReader:
    """Objects are plain files below ``root``, as a `StoreReader` of store_reader.py reads them."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def look(self, key: str) -> StoredObject | None:
        """By reading the file: a directory keeps no sha256."""
        return self.digest(key)

    def digest(self, key: str) -> StoredObject | None:
        """See `shipper.destinations.store_reader.StoreReader`."""
        digest, size = hashlib.sha256(), 0
        with self._faults(), contextlib.suppress(FileNotFoundError), self._open(key) as file:
            while data := file.read(_READ_SIZE):
                digest.update(data)
                size += len(data)
            return StoredObject(size, digest.hexdigest())
        return None

    def read(self, key: str) -> StoredDocument | None:
        """See `shipper.destinations.store_reader.StoreReader`."""
        with self._faults(), contextlib.suppress(FileNotFoundError), self._open(key) as file:
            modified = os.fstat(file.fileno()).st_mtime
            return StoredDocument(file.read(DOCUMENT_LIMIT + 1), modified)
        return None

    def folders(self, prefix: str) -> list[str]:
        """See `shipper.destinations.store_reader.StoreReader`."""
        found: list[str] = []
        with (
            self._faults(),
            contextlib.suppress(FileNotFoundError),
            os.scandir(self._path(prefix)) as entries,
        ):
            found = [one.name for one in entries if one.is_dir(follow_symlinks=False)]
        return sorted(found)

    def _open(self, key: str) -> BinaryIO:
        return os.fdopen(durable_file.open_plain(self._path(key)), "rb")

    def _path(self, key: str) -> Path:
        if not self._root.is_dir():
            raise DestinationFault(f"directory {self._root} is not there", "mount it, or make it")
        parts = PurePosixPath(key).parts
        if ".." in parts or key.startswith("/"):
            raise FileNotFoundError(key)  # no key of ours, so nothing lies under it
        return self._root.joinpath(*parts)

    @contextlib.contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except PermissionError as error:
            raise ReadDeniedFault(
                f"directory {self._root}: {error.strerror}", "run this as root or as aod-shipper"
            ) from error
        except OSError as error:
            raise DestinationFault(
                f"directory {self._root}: {error.strerror or error}",
                "look at the disk and the kernel log",
            ) from error
