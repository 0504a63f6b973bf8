"""Compares the store with the receipts: whether what was delivered is there, and is the same."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from agent.storage import durable_file
from agent.storage.spool import ARCHIVE, DONE, SHIPPED
from shipper.destinations.store_reader import ReadDeniedFault, StoreReader
from shipper.inspection.bundle_finder import FoundBundle, find_bundles
from shipper.spools.sources import Source

RIGHT = "right"
MISSING = "missing"
DIFFERENT = "different"
UNPROVEN = "unproven"
ELSEWHERE = "elsewhere"
DENIED = "denied"

_CONCURRENCY = 8
# So many refusals, and nothing that could be read before them: the key may not read at all.
_PATIENCE = 8


@dataclass(frozen=True)
class Receipt:
    """What the shipper noted when ``bundle`` was delivered."""

    bundle: FoundBundle
    content: Mapping[str, Any]

    @property
    def size(self) -> int:
        """The archive's, in bytes."""
        size = self.content.get("size")
        return size if isinstance(size, int) else 0

    def text(self, name: str) -> str:
        """A member; empty when there is none, or no text."""
        value = self.content.get(name)
        return value if isinstance(value, str) else ""


@dataclass(frozen=True)
class Finding:
    """What was found of one receipt: the ``verdict``, why, and what to do."""

    id: str
    host: str | None
    key: str
    size: int
    verdict: str
    reason: str = ""
    remedy: str = ""


def read_receipts(sources: Iterable[Source]) -> list[Receipt]:
    """All that are not folded yet, the newest first. Raises OSError."""
    found = [one for one in find_bundles(sources, "") if SHIPPED in one.parts]
    return [Receipt(one, one.document(SHIPPED)) for one in reversed(found)]


class Verification:
    """Looks up what every receipt names. ``readers`` are by a store's description, as receipts
    have it; ``deep``: the bytes of every archive are read."""

    def __init__(self, readers: Mapping[str, StoreReader], deep: bool) -> None:
        self._readers = readers
        self._deep = deep

    def run(self, receipts: Iterable[Receipt]) -> Iterator[Finding]:
        """The findings as they come, in the order of the receipts.

        Raises ReadDeniedFault when nothing may be read, NetworkFault or DestinationFault when the
        store cannot be asked.
        """
        denied: list[Finding] = []
        readable = False
        with ThreadPoolExecutor(_CONCURRENCY) as threads:
            try:
                for finding in threads.map(self._check, receipts):
                    readable = readable or finding.verdict not in (DENIED, ELSEWHERE)
                    if finding.verdict == DENIED and not readable:
                        denied.append(finding)
                    else:
                        yield finding
                    if len(denied) >= _PATIENCE and not readable:
                        break
                if readable:
                    yield from denied
                elif denied:
                    raise ReadDeniedFault(denied[0].reason, denied[0].remedy)
            finally:
                threads.shutdown(cancel_futures=True)

    def _check(self, receipt: Receipt) -> Finding:
        reader = self._readers.get(receipt.text("destination"))
        if reader is None or not receipt.text("key") or not receipt.text("manifest_key"):
            where = receipt.text("destination") or "a store that its receipt does not name"
            return _finding(receipt, ELSEWHERE, f"delivered to {where}")
        try:
            return self._check_manifest(receipt, reader) or self._check_archive(receipt, reader)
        except ReadDeniedFault as fault:
            reason = f"{fault.message}, or it is missing: without s3:ListBucket nobody can tell"
            return _finding(receipt, DENIED, reason, fault.remedy)

    def _check_manifest(self, receipt: Receipt, reader: StoreReader) -> Finding | None:
        """None when it is as it should be."""
        manifest = reader.read(receipt.text("manifest_key"))
        if manifest is None:
            return _wrong(receipt, MISSING, "there is no manifest")
        difference = _difference(receipt, manifest.content)
        return _wrong(receipt, DIFFERENT, difference) if difference else None

    def _check_archive(self, receipt: Receipt, reader: StoreReader) -> Finding:
        key = receipt.text("key")
        archive = reader.digest(key) if self._deep else reader.look(key)
        if archive is None:
            return _wrong(receipt, MISSING, "there is a manifest, but no archive")
        if archive.size != receipt.size:
            reason = f"the archive has {archive.size} bytes, not {receipt.size}"
            return _wrong(receipt, DIFFERENT, reason)
        if archive.sha256 is None:
            reason = "the store keeps no sha256 of the archive"
            return _finding(receipt, UNPROVEN, reason, "read the bytes: --deep")
        if archive.sha256 != receipt.text("sha256"):
            return _wrong(receipt, DIFFERENT, "the archive has another sha256")
        return _finding(receipt, RIGHT)


def _difference(receipt: Receipt, content: bytes) -> str:
    """What is wrong with the manifest in the store; empty if nothing.

    It is compared with the one in the spool as long as that is there, then by what it says.
    """
    if DONE in receipt.bundle.parts:
        try:
            own = durable_file.read_plain(receipt.bundle.source.spool.path(receipt.bundle.id, DONE))
        except FileNotFoundError:  # cleaned up meanwhile
            own = content
        if content != own:
            return "the manifest is not the spool's"
    try:
        manifest = json.loads(content)
        archive = manifest["archive"]
        says = (manifest["id"], archive["size"], archive["sha256"])
    except (ValueError, LookupError, TypeError, RecursionError):
        return "the manifest is none"
    if says != (receipt.bundle.id, receipt.size, receipt.text("sha256")):
        return "the manifest is of another archive"
    return ""


def _wrong(receipt: Receipt, verdict: str, reason: str) -> Finding:
    if {ARCHIVE, DONE} <= receipt.bundle.parts:
        remedy = f"aod-shipper requeue --delivered {receipt.bundle.id}"
    else:
        remedy = "its archive is no longer here: look for an older version or a copy of the object"
    return _finding(receipt, verdict, reason, remedy)


def _finding(receipt: Receipt, verdict: str, reason: str = "", remedy: str = "") -> Finding:
    bundle = receipt.bundle
    return Finding(
        id=bundle.id,
        host=bundle.source.host,
        key=receipt.text("key"),
        size=receipt.size,
        verdict=verdict,
        reason=reason,
        remedy=remedy,
    )
