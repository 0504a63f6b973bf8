"""One bundle on its way: what its manifest promises, and the proof while it is read."""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from agent.storage import durable_file
from agent.storage.spool import UPLOADING, SpooledBundle
from shipper.destinations.object_key import ObjectKeys, object_keys
from shipper.faults import BundleFault, Fault, spool_fault

_SHA256 = re.compile(r"[0-9a-f]{64}")
_REMEDY = "the bundle stays in the spool; compare it with the agent's log of that time"


@dataclass(frozen=True)
class Delivery:
    """A bundle and where it goes. ``manifest`` holds the done-marker's bytes, unchanged; in
    ``upload_note`` a store may keep what it needs to go on with an upload that was cut off."""

    id: str
    keys: ObjectKeys
    archive: Path
    size: int
    sha256: str
    manifest: bytes
    upload_note: Path

    def open_archive(self) -> ArchiveReader:
        """The archive from its start; raises BundleFault when it is not the promised plain file,
        HostFault when it cannot be read now."""
        try:
            descriptor = durable_file.open_plain(self.archive)
        except OSError as error:
            raise _unreadable(self.archive, error) from error
        return ArchiveReader(os.fdopen(descriptor, "rb"), self)


class ArchiveReader:
    """Reads an archive and raises BundleFault, at its end at the latest, if it is another;
    HostFault when it cannot be read.

    It may be read in pieces and again, but nothing may be skipped: each byte counts for the proof
    when it is read first. So whoever finishes an upload only after the last byte was read
    never stores a wrong archive as a whole one.
    """

    def __init__(self, file: BinaryIO, delivery: Delivery) -> None:
        self._file = file
        self._delivery = delivery
        self._digest = hashlib.sha256()
        self._hashed = 0
        self._position = 0

    def __enter__(self) -> ArchiveReader:
        try:
            self._check_size(os.fstat(self._file.fileno()).st_size)
        except BaseException:
            self._file.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()

    @property
    def sha256_so_far(self) -> str:
        """Of all that counts for the proof."""
        return self._digest.hexdigest()

    def start_over(self) -> None:
        """Go back to the first byte; nothing of what was read counts for the proof any more."""
        self._digest = hashlib.sha256()
        self._hashed = self._position = 0

    def seek(self, position: int) -> None:
        """Read on at ``position``, which is not beyond what was read before."""
        if position > self._hashed:
            raise ValueError(f"bytes {self._hashed} to {position} would count for no proof")
        self._position = position

    def read(self, amount: int = -1) -> bytes:
        """Up to ``amount`` bytes, all that remain if negative; fewer only at the end."""
        try:
            self._file.seek(self._position)
            data = self._file.read(amount)
        except OSError as error:
            raise _unreadable(self._delivery.archive, error) from error
        fresh = self._position + len(data) - self._hashed
        if fresh > 0:
            self._digest.update(memoryview(data)[-fresh:])
            self._hashed += fresh
        self._position += len(data)
        if amount < 0 or len(data) < amount or self._hashed >= self._delivery.size:
            self._check_size(self._hashed)
            self._check_digest()
        return data

    def _check_size(self, size: int) -> None:
        promised = self._delivery.size
        if size != promised:
            raise BundleFault(
                f"{self._delivery.archive.name}: {size} bytes, the manifest says {promised}",
                _REMEDY,
            )

    def _check_digest(self) -> None:
        if self._digest.hexdigest() != self._delivery.sha256:
            name = self._delivery.archive.name
            raise BundleFault(f"{name}: its sha256 is not the manifest's", _REMEDY)


def read_delivery(bundle: SpooledBundle, prefix: str, host: str | None = None) -> Delivery:
    """Read and check the manifest of ``bundle``; raises BundleFault when it cannot be trusted,
    HostFault when it cannot be read now.

    ``host`` stands in the keys instead of the one that the manifest claims.
    """
    try:
        raw = durable_file.read_plain(bundle.done)
    except OSError as error:
        raise _unreadable(bundle.done, error) from error
    try:
        return _parse(bundle, prefix, host, raw)
    except (ValueError, RecursionError) as error:
        message = f"{bundle.done.name}: bad manifest: {error}"
        raise BundleFault(message, _REMEDY) from error


def _parse(bundle: SpooledBundle, prefix: str, host: str | None, raw: bytes) -> Delivery:
    manifest = json.loads(raw)
    archive = manifest.get("archive") if isinstance(manifest, dict) else None
    if not isinstance(archive, dict):
        raise ValueError("there is no object 'archive' in it")
    size, sha256 = archive.get("size"), archive.get("sha256")
    if manifest.get("id") != bundle.id:
        raise ValueError("its id is not the file's")
    if archive.get("file") != bundle.archive.name:
        raise ValueError("archive.file is not the file beside it")
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise ValueError("archive.size is no size in bytes")
    if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
        raise ValueError("archive.sha256 is no sha256")
    claimed, anomaly = _text(manifest.get("host")), _text(manifest.get("anomaly"))
    keys = object_keys(prefix, claimed if host is None else host, anomaly, bundle.id, sha256)
    note = bundle.done.with_suffix(UPLOADING)
    return Delivery(bundle.id, keys, bundle.archive, size, sha256, raw, note)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _unreadable(path: Path, error: OSError) -> Fault:
    """A verdict on the bundle only when another try can say nothing else."""
    if isinstance(error, durable_file.UnsafeFileError):
        return BundleFault(f"{path.name}: cannot be read: not a plain file", _REMEDY)
    return spool_fault("cannot be read", error)
