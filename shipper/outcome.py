"""What became of a bundle, and of a round."""

from __future__ import annotations

from dataclasses import dataclass

from shipper.faults import Fault
from shipper.shipper_state import FaultNote, utc_now


@dataclass(frozen=True)
class Outcome:
    """What became of one bundle: its ``key`` in the store, or the ``fault`` in the way.

    With both, it is in the store but the spool takes no receipt; with neither, it was evicted
    before its turn came.
    """

    bundle_id: str
    size: int
    key: str | None = None
    fault: Fault | None = None


@dataclass(frozen=True)
class Summary:
    """One round: what was shipped, what was passed over while others went, and the fault of all.

    ``left`` counts the bundles that are still pending, those passed over among them.
    """

    shipped: tuple[Outcome, ...] = ()
    passed_over: tuple[Outcome, ...] = ()
    fault: Fault | None = None
    left: int = 0

    @property
    def complete(self) -> bool:
        """Whether nothing stayed behind."""
        return not self.left and self.fault is None

    def notes(self) -> list[FaultNote]:
        """Every fault of the round, that of all bundles first, as of now."""
        now = utc_now()
        faults = [(None, self.fault), *((one.bundle_id, one.fault) for one in self.passed_over)]
        return [
            FaultNote(fault.kind, fault.message, fault.remedy, now, bundle)
            for bundle, fault in faults
            if fault is not None
        ]
