"""One look at everything that is pending, while it goes on."""

from __future__ import annotations

from collections.abc import Iterable

from shipper.faults import BundleFault, Fault
from shipper.shipping.fair_queue import Cargo
from shipper.shipping.outcome import Outcome, Summary


class ShippingRound:
    """Tells a fault of one bundle from a fault of all: that one is met twice in a row.

    One thread. While it is open whether the store works, one bundle at a time is begun: so an
    outage costs two bundles' attempts, whatever waits.
    """

    def __init__(self) -> None:
        self._begun: set[Cargo] = set()
        self._left: set[Cargo] = set()
        self._shipped: list[Outcome] = []
        self._passed_over: list[Outcome] = []
        self._fault: Fault | None = None
        self._suspect: Outcome | None = None
        self._store_works = False
        self._over = False

    @property
    def in_doubt(self) -> bool:
        """Whether the last delivery failed, and nobody knows yet whom that concerns."""
        return self._suspect is not None

    def may_begin(self, running: int, most_at_once: int) -> bool:
        """Whether another one may begin beside so many that are ``running``."""
        limit = most_at_once if self._store_works and not self.in_doubt else min(1, most_at_once)
        return running < limit and not self._over

    def not_begun(self, waiting: list[Cargo]) -> Iterable[Cargo]:
        """Take ``waiting`` for all that there is; those of it whose turn has not come yet."""
        self._left = set(waiting)
        return self._left - self._begun

    def begin(self, cargo: Cargo) -> None:
        """Its turn has come; once in a round."""
        self._begun.add(cargo)

    def add(self, cargo: Cargo, outcome: Outcome) -> None:
        """Count what became of a cargo that was begun."""
        if outcome.key is not None:
            self._store_works = True
            self._clear_suspicion()
            self._fault = outcome.fault or self._fault
        elif isinstance(outcome.fault, BundleFault):
            self._passed_over.append(outcome)
        elif outcome.fault is not None:
            self._over = self._over or self.in_doubt
            self._suspect = outcome
        if outcome.fault is None:
            self._left.discard(cargo)
            self._shipped += [outcome] if outcome.key is not None else []

    def hinder(self, fault: Fault) -> None:
        """Something cannot be seen, because of ``fault``; the rest goes on."""
        self._fault = fault

    def summary(self) -> Summary:
        """What came of it so far."""
        return Summary(
            shipped=tuple(one for one in self._shipped if not one.tombstone),
            tombstones=tuple(one for one in self._shipped if one.tombstone),
            passed_over=tuple(self._passed_over),
            fault=self._suspect.fault if self._suspect else self._fault,
            blocked=self.in_doubt,
            unfinished=not self.in_doubt and bool(self._left - self._begun),
            left=sum(not one.tombstone for one in self._left),
            tombstones_left=sum(one.tombstone for one in self._left),
        )

    def _clear_suspicion(self) -> None:
        if self._suspect is not None and not self._over:
            self._passed_over.append(self._suspect)
            self._suspect = None
