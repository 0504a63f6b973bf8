"""One run: a copy of the spool is shipped into an empty bucket, and then all is looked at."""

from __future__ import annotations

import contextlib
import queue
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from agent.storage.spool import Spool
from shipper.shipping.outcome import Outcome, Summary
from shipper.shipping.shipper import Shipper
from tests.cargo import Cargo, broken_spool, make_cargo
from tests.store_matrix.exchange import Exchange
from tests.store_matrix.invariants import (
    broken_outcomes,
    broken_store,
    broken_uploads,
    unfinished_uploads,
)
from tests.store_matrix.lane import Lane
from tests.store_matrix.proxy import Fault, Injection
from tests.store_matrix.store_request import StoreRequest
from tests.store_matrix.victim import THREE_PARTS, Store, small_parts

LANES = 2
ROUNDS = 40
NO_FAULT = Fault("none", Exchange.pass_on)

# Ships the spool into the store, and says what broke meanwhile.
Ship = Callable[[Store, Spool], list[str]]


@dataclass(frozen=True)
class Result:
    """What was asked of the store; ``remains``: how many uploads that hold nothing are left for the
    bucket's lifecycle rule; ``broken``: which invariants are."""

    requests: tuple[StoreRequest, ...]
    remains: int
    broken: tuple[str, ...]


@dataclass(frozen=True)
class Bench:
    """What all runs share. Safe for many threads: a lane is lent to one at a time."""

    cargo: Cargo
    lanes: queue.Queue[Lane]

    def run(self, injection: Injection | None, ship: Ship, remembers: bool = True) -> Result:
        """``remembers``: the shipper lives on, and knows of every upload of which it was told."""
        fault = injection.fault if injection else NO_FAULT
        with (
            self._lane() as lane,
            lane.store_for(fault) as store,
            tempfile.TemporaryDirectory() as directory,
        ):
            spool, proxy = Spool(Path(directory, "spool")), lane.proxy_for(fault)
            shutil.copytree(self.cargo.root, spool.root)
            proxy.arm(injection)
            try:
                broken = ship(store, spool)
            finally:
                proxy.disarm()
            broken += proxy.broken
            broken += broken_spool(spool, self.cargo)
            where, objects = (lane.server, store.bucket), self.cargo.objects()
            broken += broken_store(*where, objects)
            uploads = unfinished_uploads(*where, objects)
            broken += broken_uploads(*where, uploads, proxy.told if remembers else set())
            if injection is not None and not injection.hits:
                broken.append("the harness missed the request")
            return Result(tuple(proxy.seen), len(uploads), tuple(broken))

    def clean_run(self, ship: Ship) -> tuple[StoreRequest, ...]:
        """The requests of a run without a fault; RuntimeError when that does not work."""
        result = self.run(None, ship)
        if result.broken:
            raise RuntimeError(f"it does not work even without a fault: {result.broken}")
        return result.requests

    @contextlib.contextmanager
    def _lane(self) -> Iterator[Lane]:
        lane = self.lanes.get()
        try:
            yield lane
        finally:
            self.lanes.put(lane)


@contextlib.contextmanager
def open_bench(binary: Path, write_only: bool = False) -> Iterator[Bench]:
    """Running stores, ``binary`` is MinIO's, and the spool of which each run gets a copy.

    ``write_only``: the shipper's key may put objects and abort uploads, and nothing else."""
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stack.enter_context(small_parts())
        lanes: queue.Queue[Lane] = queue.Queue()
        for number in range(LANES):
            home = directory / f"lane-{number}"
            home.mkdir()
            lanes.put(stack.enter_context(Lane(binary, home, write_only)))
        yield Bench(make_cargo(directory / "spool", THREE_PARTS), lanes)


def ship_in_rounds(store: Store, spool: Spool) -> list[str]:
    """In this process, as the service does: the next round takes up what stayed behind."""
    outcomes: list[Outcome] = []
    shipper = store.new_shipper(spool, outcomes.append)
    broken = _rounds(shipper)
    return [*broken, *broken_outcomes(outcomes)]


def _rounds(shipper: Shipper) -> list[str]:
    summary = Summary()
    for _ in range(ROUNDS):
        summary = shipper.ship_pending()
        # Of what is left, the rotten one has been looked at: that is the one thing in the way.
        in_the_way = [note.kind for note in summary.notes()]
        if summary.left == 1 and not summary.tombstones_left and in_the_way == ["bundle"]:
            return []
    return [f"stuck after {ROUNDS} rounds: {[note.text for note in summary.notes()]}"]
