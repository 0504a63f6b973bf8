"""One look at everything that is pending, while it goes on."""

from __future__ import annotations

from shipper.faults import BundleFault, Fault
from shipper.outcome import Outcome, Summary


class ShippingRound:
    """Tells a fault of one bundle from a fault of all: that one is met twice in a row."""

    def __init__(self, pending: int, tombstones: int) -> None:
        self._left = pending
        self._tombstones_left = tombstones
        self._shipped: list[Outcome] = []
        self._passed_over: list[Outcome] = []
        self._receipt_fault: Fault | None = None
        self._suspect: Outcome | None = None
        self.over = False

    @property
    def in_doubt(self) -> bool:
        """Whether the last delivery failed, and nobody knows yet whom that concerns."""
        return self._suspect is not None

    def add(self, outcome: Outcome) -> None:
        """Count the next bundle or tombstone."""
        if outcome.key is not None:
            self._store_works(outcome)
        elif outcome.fault is None:
            self._take_off(outcome)
        elif isinstance(outcome.fault, BundleFault):
            self._passed_over.append(outcome)
        else:
            self.over = self.in_doubt
            self._suspect = outcome

    def summary(self) -> Summary:
        """What came of it so far."""
        fault = self._suspect.fault if self._suspect else self._receipt_fault
        return Summary(
            shipped=tuple(one for one in self._shipped if not one.tombstone),
            tombstones=tuple(one for one in self._shipped if one.tombstone),
            passed_over=tuple(self._passed_over),
            fault=fault,
            left=self._left,
            tombstones_left=self._tombstones_left,
        )

    def _store_works(self, outcome: Outcome) -> None:
        if self._suspect is not None:
            self._passed_over.append(self._suspect)
            self._suspect = None
        if outcome.fault is None:
            self._take_off(outcome)
            self._shipped.append(outcome)
        else:
            self._receipt_fault = outcome.fault

    def _take_off(self, outcome: Outcome) -> None:
        if outcome.tombstone:
            self._tombstones_left -= 1
        else:
            self._left -= 1
