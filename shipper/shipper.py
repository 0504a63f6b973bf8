"""Spool to store: every finished bundle once, in the order in which they were made."""

from __future__ import annotations

import contextlib
import os
import select
from collections.abc import Callable
from dataclasses import dataclass

from tenacity import RetryCallState, Retrying, retry_if_exception_type, wait_random_exponential

from agent import __version__
from agent.service.stop_signal import StopSignal
from agent.storage.spool import Spool, SpooledBundle
from shipper.config_schema import ShipperConfig
from shipper.delivery import Delivery, read_delivery
from shipper.destination import Destination
from shipper.faults import BundleFault, Fault, HostFault, NetworkFault
from shipper.shipper_state import FaultNote, StateFile, utc_now

_SPOOL_REMEDY = (
    "the shipper's user must be in the group that owns the spool, and its file system have room"
)

# Inode, size and times of a bundle's files: a bad bundle is read again only when they change.
_Stamp = tuple[int, ...]


@dataclass(frozen=True)
class Outcome:
    """What became of one bundle: its ``key`` in the store, or the ``fault`` in the way.

    With neither, it was evicted before its turn came.
    """

    bundle_id: str
    size: int
    key: str | None = None
    fault: Fault | None = None


@dataclass(frozen=True)
class Summary:
    """One round: what was shipped, what was passed over as bad, and the fault that ended it.

    ``left`` counts the bundles that are still pending, the bad ones among them.
    """

    shipped: tuple[Outcome, ...] = ()
    bad: tuple[Outcome, ...] = ()
    fault: Fault | None = None
    left: int = 0

    @property
    def complete(self) -> bool:
        """Whether nothing stayed behind."""
        return not self.left and self.fault is None


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
        self._prefix = config.prefix
        self._stop = stop
        self._on_outcome = on_outcome
        self._state = StateFile(self._spool.batches)
        self._bad: dict[str, tuple[_Stamp, Outcome]] = {}
        self._attempts = config.retry.attempts
        self._retrying = Retrying(
            retry=retry_if_exception_type(NetworkFault),
            stop=self._gives_up,
            wait=wait_random_exponential(config.retry.initial_wait_sec, config.retry.max_wait_sec),
            sleep=self._pause,
            reraise=True,
        )

    def ship_pending(self) -> Summary:
        """Ship what is pending, oldest first, until done, stopped, or a fault concerns all.

        Raises nothing but programming errors: faults are in the summary and in the state file.
        """
        try:
            pending = self._spool.pending()
        except OSError as error:
            return Summary(fault=_spool_fault("cannot be listed", error))
        summary = self._ship_all(pending)
        # A note that cannot be written must not stop the shipping; the fault itself is reported.
        with contextlib.suppress(OSError):
            self._state.write(_notes(summary))
        return summary

    def _ship_all(self, pending: list[SpooledBundle]) -> Summary:
        shipped: list[Outcome] = []
        bad: list[Outcome] = []
        fault: Fault | None = None
        left = len(pending)
        for bundle in pending:
            if self._stop.is_set() or fault is not None:
                break
            outcome = self._ship(bundle)
            if isinstance(outcome.fault, BundleFault):
                bad.append(outcome)
            elif outcome.fault is not None:
                fault = outcome.fault
            else:
                left -= 1
                shipped += [outcome] if outcome.key else []
        return Summary(tuple(shipped), tuple(bad), fault, left)

    def _ship(self, bundle: SpooledBundle) -> Outcome:
        stamp = _stamp(bundle)
        known = self._bad.get(bundle.id)
        if known is not None and known[0] == stamp:
            return known[1]
        outcome = self._try_to_ship(bundle)
        if isinstance(outcome.fault, BundleFault):
            self._bad[bundle.id] = (stamp, outcome)
        self._on_outcome(outcome)
        return outcome

    def _try_to_ship(self, bundle: SpooledBundle) -> Outcome:
        try:
            delivery = read_delivery(bundle, self._prefix)
            self._retrying(self._destination.deliver, delivery)
            self._write_receipt(delivery)
        except BundleFault as fault:
            gone = not os.path.lexists(bundle.done)
            return Outcome(bundle.id, bundle.size, fault=None if gone else fault)
        except Fault as fault:
            return Outcome(bundle.id, bundle.size, fault=fault)
        return Outcome(bundle.id, delivery.size, key=delivery.keys.archive)

    def _write_receipt(self, delivery: Delivery) -> None:
        receipt = {
            "id": delivery.id,
            "key": delivery.keys.archive,
            "manifest_key": delivery.keys.manifest,
            "sha256": delivery.sha256,
            "size": delivery.size,
            "destination": self._destination.description,
            "shipped_at": utc_now(),
            "attempts": self._retrying.statistics["attempt_number"],
            "shipper_version": __version__,
        }
        try:
            self._spool.write_receipt(delivery.id, receipt)
        except OSError as error:
            raise _spool_fault("takes no receipt", error) from error

    def _gives_up(self, state: RetryCallState) -> bool:
        return self._stop.is_set() or state.attempt_number >= self._attempts

    def _pause(self, seconds: float) -> None:
        select.select([self._stop.fd], [], [], seconds)


def _stamp(bundle: SpooledBundle) -> _Stamp:
    stamp: _Stamp = ()
    for path in (bundle.done, bundle.archive):
        with contextlib.suppress(OSError):
            status = path.lstat()
            stamp += (status.st_ino, status.st_size, status.st_ctime_ns)
    return stamp


def _notes(summary: Summary) -> list[FaultNote]:
    now = utc_now()
    faults = [(None, summary.fault), *((bad.bundle_id, bad.fault) for bad in summary.bad)]
    return [
        FaultNote(fault.kind, fault.message, fault.remedy, now, bundle)
        for bundle, fault in faults
        if fault is not None
    ]


def _spool_fault(what: str, error: OSError) -> HostFault:
    return HostFault(f"the spool {what}: {error.strerror or error}", _SPOOL_REMEDY)
