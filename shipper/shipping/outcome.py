"""What became of a bundle, and of a round."""

from __future__ import annotations

from dataclasses import dataclass

from shipper.faults import Fault
from shipper.moments import utc_now
from shipper.status.shipper_state import FaultNote


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one bundle, or of its ``tombstone``: its ``key`` in the store, or the
    ``fault`` in the way.

    With both, it is in the store but the spool takes no receipt; with neither, it was evicted
    before its turn came. ``host`` is that of the inbox it lay
    in; ``known``: the verdict of an earlier look, nothing was tried.
    """

    bundle_id: str
    size: int
    key: str | None = None
    fault: Fault | None = None
    tombstone: bool = False
    host: str | None = None
    known: bool = False

    @property
    def title(self) -> str:
        """What it is about, in words."""
        name = f"{self.bundle_id} of {self.host}" if self.host else self.bundle_id
        return f"the tombstone of {name}" if self.tombstone else name


@dataclass(frozen=True)
class Summary:
    """One round: what was shipped, what was passed over while others went, and the fault of all.

    ``blocked``: nothing at all goes as long as that fault lasts. ``unfinished``: a stop, or its
    time, ended it before everything had its turn. ``left`` counts the bundles that are still
    pending, those passed over among them; ``tombstones`` are shipped ones, and
    ``tombstones_left`` wait.
    """

    shipped: tuple[Outcome, ...] = ()
    tombstones: tuple[Outcome, ...] = ()
    passed_over: tuple[Outcome, ...] = ()
    fault: Fault | None = None
    blocked: bool = False
    unfinished: bool = False
    left: int = 0
    tombstones_left: int = 0

    @property
    def complete(self) -> bool:
        """Whether nothing stayed behind."""
        return not self.left and not self.tombstones_left and self.fault is None

    def notes(self) -> list[FaultNote]:
        """Every fault of the round, that of all bundles first, as of now."""
        faults = [(None, self.fault), *((one.bundle_id, one.fault) for one in self.passed_over)]
        return [note_of(fault, bundle) for bundle, fault in faults if fault is not None]


def note_of(fault: Fault, bundle: str | None = None) -> FaultNote:
    """``fault`` as of now."""
    return FaultNote(fault.kind, fault.message, fault.remedy, utc_now(), bundle)
