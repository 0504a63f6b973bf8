"""Tombstones on their way: the store learns of every bundle that it will never get."""

from __future__ import annotations

import re
from collections.abc import Set

from agent import __version__
from agent.storage import durable_file
from agent.storage.spool import EVICTED, Manifest, as_bytes
from agent.storage.tombstone import read_tombstone
from shipper.destinations.destination import Destination
from shipper.destinations.document import Document
from shipper.destinations.object_key import tombstone_key
from shipper.faults import BundleFault, Fault, spool_fault
from shipper.moments import utc_now
from shipper.shipping.outcome import Outcome
from shipper.shipping.retries import PatientDelivery
from shipper.spools.sources import Source

_SHA256 = re.compile(r"[0-9a-f]{64}")


class Tombstones:
    """Puts the tombstones of ``source`` into the store, each under a key beside its bundle's.

    `undelivered` is for one thread; different ones may be shipped in many.

    Safe to kill at any point: a tombstone never changes, so a second delivery writes the same
    bytes to the same key; it is in the store for good when its note ``.evicted-shipped`` exists.
    """

    def __init__(
        self, source: Source, destination: Destination, patient: PatientDelivery, prefix: str
    ) -> None:
        self._spool = source.spool
        self._host = source.host
        self._destination = destination
        self._patient = patient
        self._prefix = prefix
        self._unwritten: dict[str, Manifest] = {}

    def undelivered(self, pending: Set[str]) -> list[str]:
        """Ids, oldest first, without those that may still be delivered whole. Raises OSError."""
        ids = [one for one in self._spool.undelivered_tombstones() if one not in pending]
        for gone in self._unwritten.keys() - set(ids):
            self._unwritten.pop(gone, None)
        return ids

    def ship(self, bundle_id: str, once: bool) -> Outcome:
        """Deliver one and note it; ``once``: in one attempt. Faults are in the outcome."""
        try:
            receipt = self._unwritten.get(bundle_id)
            if receipt is None:
                receipt = self._unwritten[bundle_id] = self._deliver(bundle_id, once)
        except FileNotFoundError:
            return Outcome(bundle_id, 0, tombstone=True)
        except Fault as fault:
            return Outcome(bundle_id, 0, fault=fault, tombstone=True)
        return self._note(bundle_id, receipt)

    def _deliver(self, bundle_id: str, once: bool) -> Manifest:
        tombstone = self._read(bundle_id)
        document = Document("tombstone", bundle_id, self._key(tombstone), as_bytes(tombstone))
        (self._destination if once else self._patient).put_document(document)
        return {
            "id": bundle_id,
            "key": document.key,
            "size": len(document.content),
            "destination": self._destination.description,
            "shipped_at": utc_now(),
            "shipper_version": __version__,
        }

    def _read(self, bundle_id: str) -> Manifest:
        path = self._spool.path(bundle_id, EVICTED)
        try:
            return read_tombstone(bundle_id, durable_file.read_plain(path))
        except durable_file.UnsafeFileError as error:
            raise BundleFault(
                f"{path.name}: cannot be read: not a plain file", "remove it"
            ) from error
        except FileNotFoundError:
            raise
        except OSError as error:
            raise spool_fault("cannot be read", error) from error

    def _key(self, tombstone: Manifest) -> str:
        sha256 = tombstone["sha256"] or ""
        known = sha256 if _SHA256.fullmatch(sha256) else ""
        claimed, anomaly = tombstone["host"] or "", tombstone["anomaly"] or ""
        host = claimed if self._host is None else self._host
        try:
            return tombstone_key(self._prefix, host, anomaly, tombstone["id"], known)
        except ValueError as error:
            raise BundleFault(f"its tombstone has no key: {error}", "remove it") from error

    def _note(self, bundle_id: str, receipt: Manifest) -> Outcome:
        """Kept until the spool takes it: the tombstone itself need not go to the store again."""
        fault = None
        try:
            self._spool.note_tombstone_delivered(bundle_id, receipt)
            self._unwritten.pop(bundle_id, None)
        except OSError as error:
            fault = spool_fault("takes no note of a tombstone", error)
        return Outcome(bundle_id, receipt["size"], receipt["key"], fault, tombstone=True)
