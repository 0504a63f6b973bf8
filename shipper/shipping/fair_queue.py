"""Whose turn it is: the newest bundle first, and no host before one that got less."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from shipper.shipping.outcome import Outcome


class Outlet(Protocol):
    """One host's share: ``sent_bytes`` grows with everything that is taken out for it."""

    sent_bytes: int

    def charge(self, cargo: Cargo) -> None:
        """Add what ``cargo`` costs to ``sent_bytes``."""

    def ship(self, cargo: Cargo, once: bool) -> Outcome:
        """Ship it, in one attempt or more."""

    def last_failure(self, cargo_id: str) -> float:
        """When it failed last, in steady seconds; 0: never."""


@dataclass(frozen=True, slots=True)
class Cargo:
    """A bundle, or a ``tombstone``, of one host."""

    id: str
    outlet: Outlet
    tombstone: bool = False

    def ship(self, once: bool) -> Outcome:
        """Ship it, in one attempt or more."""
        return self.outlet.ship(self, once)


class FairQueue:
    """What waits, by host. One thread.

    Hosts take turns by the bytes they had so far, so that one that floods waits for itself alone.
    Of each host's bundles the newest goes first, tombstones last. ``floor`` is where the queue
    before this one had got to: who comes late, or was idle, begins there and catches nothing up.
    """

    def __init__(self, cargos: Iterable[Cargo] = (), floor: int = 0) -> None:
        self.floor = floor
        self._waiting: dict[int, list[Cargo]] = {}
        for cargo in sorted(cargos, key=lambda one: (not one.tombstone, one.id)):
            self._waiting.setdefault(id(cargo.outlet), []).append(cargo)
            cargo.outlet.sent_bytes = max(cargo.outlet.sent_bytes, floor)

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def take(self) -> Cargo:
        """The next one."""
        return self._take(min(self._waiting.values(), key=_sent)[-1])

    def take_longest_unfailed(self, last_failure: Callable[[Cargo], float]) -> Cargo:
        """The one whose last failure is the longest ago: of those without any, the next.

        So many that are refused cannot hide for ever one that is not.
        """
        hosts = sorted(self._waiting.values(), key=_sent)
        return self._take(min((one for host in hosts for one in reversed(host)), key=last_failure))

    def _take(self, cargo: Cargo) -> Cargo:
        waiting = self._waiting[id(cargo.outlet)]
        waiting.pop(-1 if waiting[-1] is cargo else waiting.index(cargo))
        if not waiting:
            del self._waiting[id(cargo.outlet)]
        self.floor = cargo.outlet.sent_bytes
        cargo.outlet.charge(cargo)
        return cargo


def _sent(waiting: list[Cargo]) -> int:
    return waiting[-1].outlet.sent_bytes
