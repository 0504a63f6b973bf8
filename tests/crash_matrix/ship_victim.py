"""The shipper, from the lock on its spool to the last receipt, with a directory as its store.

All that the matrix assumes of the shipper's insides stands in this module.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from agent.storage.spool import Spool
from shipper.destinations import directory_destination
from shipper.destinations.directory_destination import DirectoryBucket
from shipper.shipping import shipper as shipper_module
from shipper.shipping.outcome import Outcome, Summary
from shipper.shipping.shipper import Shipper
from shipper.spools.spool_lock import SpoolLock
from tests.cargo import GONE, GOOD, ROTTEN, Cargo, broken_spool, make_cargo, read_cargo
from tests.crash_matrix.invariants import broken_fates
from tests.crash_matrix.report import Report
from tests.crash_matrix.victim import DELIVERED, EVICTED, PENDING, Fates, Victim
from tests.shipper_support import make_shipper

STORE = "store"
# Twice what Python gathers before it writes; and it is copied in two pieces.
LARGE_SIZE, COPY_SIZE = 16 << 10, 8 << 10


def seed_cargo(root: Path) -> None:
    """Three small bundles and a larger one, a rotten one, and a tombstone."""
    make_cargo(root, LARGE_SIZE)


def ship(root: Path, report: Report) -> None:
    """Ship it all; a second round takes up what a fault has left, and must work."""

    def promise(outcome: Outcome) -> None:
        if outcome.key is not None and outcome.fault is None and not outcome.tombstone:
            report.promise(outcome.bundle_id, DELIVERED)

    with _small_copies():
        shipper = _new_shipper(root, promise)
        for note in _round(root, shipper).notes():
            if note.bundle != ROTTEN:
                report.failure("shipping", note.text)
        report.tried()
        summary = _round(root, shipper)
    if not _all_shipped(summary):
        report.broken(f"the next round did not work either: {summary}")
    report.worked()


def broken_after_shipping(root: Path, fates: Fates) -> list[str]:
    """Start the shipper on the spool ``root``, have it ship what is left, and say in which ways
    store and spool are not right before or after it."""
    cargo = read_cargo(root)
    broken = list(_broken_order(_objects(root), cargo))
    with _small_copies():
        summary = _round(root, _new_shipper(root))
    if not _all_shipped(summary):
        broken.append(f"not all is shipped: {summary}")
    return [
        *broken,
        *broken_spool(Spool(root), cargo),
        *broken_fates(root, fates),
        *_broken_store(_objects(root), cargo),
    ]


def _new_shipper(root: Path, on_outcome: Callable[[Outcome], None] = lambda _: None) -> Shipper:
    return make_shipper(Spool(root), DirectoryBucket(_store(root)), on_outcome=on_outcome)


def _round(root: Path, shipper: Shipper) -> Summary:
    """As ``aod-shipper once`` does it."""
    with SpoolLock(Spool(root).batches):
        return shipper.ship_pending()


def _all_shipped(summary: Summary) -> bool:
    """But for the rotten one."""
    return summary.left == 1 and not summary.tombstones_left and summary.fault is None


def _broken_order(objects: dict[str, bytes], cargo: Cargo) -> Iterator[str]:
    """A manifest that can be seen has its archive, whole."""
    for delivery in cargo.good:
        whole = objects.get(delivery.keys.archive) == delivery.archive.read_bytes()
        if delivery.keys.manifest in objects and not whole:
            yield f"a manifest before its archive: {delivery.id}"


def _broken_store(objects: dict[str, bytes], cargo: Cargo) -> Iterator[str]:
    """Exactly one right object for each."""
    expected = cargo.objects()
    yield from (f"not in the store: {key}" for key in sorted(expected.keys() - objects.keys()))
    yield from (f"left in the store: {key}" for key in sorted(objects.keys() - expected.keys()))
    for key in sorted(objects.keys() & expected.keys()):
        if objects[key] != expected[key]:
            yield f"other bytes: {key}"


def _objects(root: Path) -> dict[str, bytes]:
    store = _store(root)
    files = [path for path in store.rglob("*") if path.is_file()]
    return {str(path.relative_to(store)): path.read_bytes() for path in files}


def _store(root: Path) -> Path:
    return root.with_name(STORE)


class _ThisThread(Executor):
    """Does at once what it is given, so that all calls are of one thread, in one order."""

    def __init__(self, *_: object) -> None:
        pass

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        done: Future[Any] = Future()
        done.set_result(fn(*args, **kwargs))
        return done


@contextmanager
def _small_copies() -> Iterator[None]:
    """Without a word: what goes wrong is meant to."""
    logging.disable()
    try:
        with (
            mock.patch.object(directory_destination, "_COPY_SIZE", COPY_SIZE),
            mock.patch.object(shipper_module, "ThreadPoolExecutor", _ThisThread),
        ):
            yield
    finally:
        logging.disable(logging.NOTSET)


SHIP = Victim(
    "ship",
    seed_cargo,
    ship,
    {
        **dict.fromkeys(GOOD, frozenset({DELIVERED})),
        ROTTEN: frozenset({PENDING}),
        GONE: frozenset({EVICTED}),
    },
    broken_after_shipping,
)
