"""Spool to store: every finished bundle once, in the order in which they were made; tombstones."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Set
from dataclasses import dataclass
from functools import partial

from agent import __version__
from agent.service.stop_signal import StopSignal
from agent.storage.spool import Manifest, Spool, SpooledBundle
from shipper.bad_bundles import BadBundles, stamp_of
from shipper.config_schema import ShipperConfig
from shipper.delivery import Delivery, read_delivery
from shipper.destination import Destination
from shipper.faults import BundleFault, Fault, HostFault, spool_fault
from shipper.outcome import Outcome, Summary
from shipper.retries import PatientDelivery
from shipper.shipper_state import utc_now
from shipper.shipping_round import ShippingRound
from shipper.tombstones import Tombstones


@dataclass(frozen=True)
class _Cargo:
    """A bundle, or a tombstone, and how it is shipped: ``ship(once)``, in one attempt or more."""

    id: str
    ship: Callable[[bool], Outcome]


class Shipper:
    """Ships a spool to a destination. One thread; ``stop`` may be set from anywhere.

    Safe to kill at any point: a bundle is delivered when its receipt exists, and delivering it
    twice writes the same bytes to the same keys. ``on_outcome`` hears of every bundle at once.
    """

    def __init__(
        self,
        config: ShipperConfig,
        destination: Destination,
        stop: StopSignal,
        on_outcome: Callable[[Outcome], None] = lambda outcome: None,
    ) -> None:
        self._spool = Spool(config.spool)
        self._destination = destination
        self._patient = PatientDelivery(destination, config.retry, stop)
        self._prefix = config.prefix
        self._stop = stop
        self._on_outcome = on_outcome
        self._tombstones = Tombstones(self._spool, destination, self._patient, config.prefix)
        self._bad = BadBundles(self._spool)
        self._last_failure: dict[str, float] = {}
        self._unwritten_receipts: dict[str, Manifest] = {}

    def ship_pending(self) -> Summary:
        """Ship what is pending, oldest first, then tombstones, until done, stopped, or a fault
        concerns all.

        Raises nothing but programming errors: faults are in the summary.
        """
        try:
            pending = self._spool.pending()
            ids = {bundle.id for bundle in pending}
            tombstones = self._tombstones.undelivered(ids)
            self._forget_all_but(ids, tombstones)
        except OSError as error:
            return Summary(fault=spool_fault("cannot be listed", error))
        waiting = [_Cargo(bundle.id, partial(self._ship, bundle)) for bundle in pending]
        waiting += [_Cargo(one, partial(self._tombstones.ship, one)) for one in tombstones]
        return self._ship_all(waiting, ShippingRound(len(pending), len(tombstones)))

    def _forget_all_but(self, pending: Set[str], tombstones: list[str]) -> None:
        self._bad.keep_only(pending)
        for bundle_id in self._last_failure.keys() - pending - set(tombstones):
            del self._last_failure[bundle_id]
        for bundle_id in self._unwritten_receipts.keys() - pending:
            del self._unwritten_receipts[bundle_id]

    def _ship_all(self, waiting: list[_Cargo], this_round: ShippingRound) -> Summary:
        """In order. After a fault another one, tried once, shows whether it concerns all."""
        while waiting and not this_round.over and not self._stop.is_set():
            cargo, once = waiting[0], this_round.in_doubt
            if once:
                # Never the same again: many that are refused must not hide one that is not.
                cargo = min(waiting, key=lambda one: self._last_failure.get(one.id, 0))
            waiting.remove(cargo)
            outcome = cargo.ship(once)
            if outcome.fault is not None:
                self._last_failure[cargo.id] = time.monotonic()
            if outcome.tombstone:
                self._on_outcome(outcome)
            this_round.add(outcome)
        return this_round.summary()

    def _ship(self, bundle: SpooledBundle, once: bool) -> Outcome:
        stamp = stamp_of(bundle)
        verdict = self._bad.find(bundle.id, stamp)
        if verdict is not None:
            return verdict
        outcome = self._try_to_ship(bundle, once)
        if isinstance(outcome.fault, BundleFault):
            self._bad.add(stamp, outcome)
        elif outcome.key is not None:
            self._bad.clear(bundle.id)
        self._on_outcome(outcome)
        return outcome

    def _try_to_ship(self, bundle: SpooledBundle, once: bool) -> Outcome:
        deliver = self._deliver_once if once else self._patient.deliver
        try:
            if bundle.id not in self._unwritten_receipts:
                delivery = read_delivery(bundle, self._prefix)
                receipt = self._receipt(delivery, deliver(delivery))
                self._unwritten_receipts[bundle.id] = receipt
        except (BundleFault, HostFault) as fault:
            gone = not os.path.lexists(bundle.done)
            return Outcome(bundle.id, bundle.size, fault=None if gone else fault)
        except Fault as fault:
            return Outcome(bundle.id, bundle.size, fault=fault)
        return self._write_receipt(bundle)

    def _deliver_once(self, delivery: Delivery) -> int:
        self._destination.deliver(delivery)
        return 1

    def _receipt(self, delivery: Delivery, attempts: int) -> Manifest:
        return {
            "id": delivery.id,
            "key": delivery.keys.archive,
            "manifest_key": delivery.keys.manifest,
            "sha256": delivery.sha256,
            "size": delivery.size,
            "destination": self._destination.description,
            "shipped_at": utc_now(),
            "attempts": attempts,
            "shipper_version": __version__,
        }

    def _write_receipt(self, bundle: SpooledBundle) -> Outcome:
        """Kept until the spool takes it: the bundle itself need not go to the store again."""
        receipt, fault = self._unwritten_receipts[bundle.id], None
        try:
            self._spool.write_receipt(bundle.id, receipt)
            del self._unwritten_receipts[bundle.id]
        except OSError as error:
            fault = spool_fault("takes no receipt", error)
        return Outcome(bundle.id, receipt["size"], receipt["key"], fault)
