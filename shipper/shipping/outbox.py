"""One source on its way to the store: its bundles, its tombstones, and what hinders them."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Set
from dataclasses import replace

from agent import __version__
from agent.storage.spool import UPLOADING, Manifest, SpooledBundle
from agent.storage.spool_listing import ids_by_suffix
from shipper.destinations.delivery import Delivery, read_delivery
from shipper.destinations.destination import Destination
from shipper.faults import BundleFault, Fault, HostFault, spool_fault
from shipper.moments import utc_now
from shipper.shipping.bad_bundles import BadBundles, stamp_of
from shipper.shipping.fair_queue import Cargo
from shipper.shipping.outcome import Outcome
from shipper.shipping.retries import PatientDelivery
from shipper.shipping.tombstones import Tombstones
from shipper.spools.sources import Source

# What a delivery costs beside the bytes: requests, and the receipt.
COST_OF_ANY = 1 << 16


class Outbox:
    """Ships the bundles of ``source``, any number of different ones at once.

    Safe to kill at any point: a bundle is delivered when its receipt exists, and delivering it
    twice writes the same bytes to the same keys. `waiting` is for one thread; what it returns
    may be shipped in many.
    """

    def __init__(
        self, source: Source, destination: Destination, patient: PatientDelivery, prefix: str
    ) -> None:
        self.source = source
        self.sent_bytes = 0
        self._spool = source.spool
        self._destination = destination
        self._patient = patient
        self._prefix = prefix
        self._tombstones = Tombstones(source, destination, patient, prefix)
        self._bad = BadBundles(self._spool)
        self._last_failure: dict[str, float] = {}
        self._unwritten_receipts: dict[str, Manifest] = {}

    def waiting(self) -> list[Cargo]:
        """What there is to ship now. Raises HostFault when that cannot be told."""
        try:
            pending = self._spool.pending_ids()
            tombstones = self._tombstones.undelivered(pending)
            self._forget_all_but(pending, tombstones)
        except OSError as error:
            raise spool_fault("cannot be listed", error) from error
        bundles = [Cargo(one, self) for one in pending]
        return [*bundles, *(Cargo(one, self, tombstone=True) for one in tombstones)]

    def charge(self, cargo: Cargo) -> None:
        """See `shipper.shipping.fair_queue.Outlet`."""
        self.sent_bytes += COST_OF_ANY
        with contextlib.suppress(OSError):  # told of when it is shipped
            bundle = None if cargo.tombstone else self._spool.bundle(cargo.id)
            self.sent_bytes += bundle.size if bundle else 0

    def ship(self, cargo: Cargo, once: bool) -> Outcome:
        """See `shipper.shipping.fair_queue.Outlet`. Faults are in the outcome."""
        ship = self._tombstones.ship if cargo.tombstone else self._ship
        outcome = replace(ship(cargo.id, once), host=self.source.host)
        if outcome.fault is not None and not outcome.known:
            self._last_failure[cargo.id] = time.monotonic()
        return outcome

    def last_failure(self, cargo_id: str) -> float:
        """See `shipper.shipping.fair_queue.Outlet`."""
        return self._last_failure.get(cargo_id, 0.0)

    def abandon_uploads(self) -> None:
        """Clear what the store holds of uploads whose bundle is gone. Raises Fault."""
        names = ids_by_suffix(self._spool.batches)
        for bundle_id in names.get(UPLOADING, set()) - self._spool.pending_ids():
            note = self._spool.path(bundle_id, UPLOADING)
            self._destination.abandon(note)
            with contextlib.suppress(OSError):  # gone, or tried again at the next look
                note.unlink()

    def _forget_all_but(self, pending: Set[str], tombstones: list[str]) -> None:
        self._bad.keep_only(pending)
        for bundle_id in self._last_failure.keys() - pending - set(tombstones):
            self._last_failure.pop(bundle_id, None)
        for bundle_id in self._unwritten_receipts.keys() - pending:
            self._unwritten_receipts.pop(bundle_id, None)

    def _ship(self, bundle_id: str, once: bool) -> Outcome:
        try:
            bundle = self._spool.bundle(bundle_id)
        except OSError as error:
            return Outcome(bundle_id, 0, fault=spool_fault("cannot be read", error))
        if bundle is None:
            return Outcome(bundle_id, 0)
        stamp = stamp_of(bundle)
        verdict = self._bad.find(bundle, stamp)
        if verdict is not None:
            return verdict
        outcome = self._try_to_ship(bundle, once)
        if isinstance(outcome.fault, BundleFault):
            self._bad.add(stamp, outcome)
        elif outcome.key is not None:
            self._bad.clear(bundle.id)
        return outcome

    def _try_to_ship(self, bundle: SpooledBundle, once: bool) -> Outcome:
        deliver = self._deliver_once if once else self._patient.deliver
        try:
            receipt = self._unwritten_receipts.get(bundle.id)
            if receipt is None:
                delivery = read_delivery(bundle, self._prefix, self.source.host)
                receipt = self._receipt(delivery, *deliver(delivery))
                self._unwritten_receipts[bundle.id] = receipt
        except (BundleFault, HostFault) as fault:
            gone = not os.path.lexists(bundle.done)
            return Outcome(bundle.id, bundle.size, fault=None if gone else fault)
        except Fault as fault:
            return Outcome(bundle.id, bundle.size, fault=fault)
        return self._write_receipt(bundle, receipt)

    def _deliver_once(self, delivery: Delivery) -> tuple[str, int]:
        return self._destination.deliver(delivery), 1

    @staticmethod
    def _receipt(delivery: Delivery, destination: str, attempts: int) -> Manifest:
        return {
            "id": delivery.id,
            "key": delivery.keys.archive,
            "manifest_key": delivery.keys.manifest,
            "sha256": delivery.sha256,
            "size": delivery.size,
            "destination": destination,
            "shipped_at": utc_now(),
            "attempts": attempts,
            "shipper_version": __version__,
        }

    def _write_receipt(self, bundle: SpooledBundle, receipt: Manifest) -> Outcome:
        """Kept until the spool takes it: the bundle itself need not go to the store again."""
        fault = None
        try:
            self._spool.write_receipt(bundle.id, receipt)
            self._unwritten_receipts.pop(bundle.id, None)
            self._clear(bundle)
        except OSError as error:
            fault = spool_fault("takes no receipt", error)
        return Outcome(bundle.id, receipt["size"], receipt["key"], fault)

    def _clear(self, bundle: SpooledBundle) -> None:
        """An inbox keeps no delivered bundle; one that cannot go is left to its keeper."""
        if self.source.host is not None:
            with contextlib.suppress(OSError):
                self._spool.remove(replace(bundle, shipped=True), None)
