"""A spool with one bundle of each kind, and what must have become of it once it is shipped."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.storage.spool import (
    ARCHIVE,
    DONE,
    EVICTED,
    EVICTED_SHIPPED,
    QUARANTINED,
    SHIPPED,
    Spool,
    as_bytes,
)
from agent.storage.tombstone import make_tombstone, read_tombstone
from shipper.destinations.delivery import Delivery
from shipper.destinations.object_key import tombstone_key
from tests.shipper_support import add_bundle, delivery_of, new_spool


def _id(letter: str) -> str:
    return f"01HF{'0' * 21}{letter}"


SMALL = (_id("A"), _id("B"), _id("C"))
LARGE, ROTTEN, GONE = _id("M"), _id("R"), _id("E")
GOOD = (*SMALL, LARGE)


@dataclass(frozen=True)
class Cargo:
    """What lies in the spool at ``root``: ``good`` is to arrive, and so is the tombstone of `GONE`;
    `ROTTEN` is not."""

    root: Path
    good: tuple[Delivery, ...]

    def objects(self) -> dict[str, bytes]:
        """Content by key, of all that is to be in a store."""
        found = {one.keys.archive: one.archive.read_bytes() for one in self.good}
        found.update({one.keys.manifest: one.manifest for one in self.good})
        tombstone = read_tombstone(GONE, Spool(self.root).path(GONE, EVICTED).read_bytes())
        names = (tombstone["host"], tombstone["anomaly"], GONE, tombstone["sha256"])
        return {**found, tombstone_key("", *names): as_bytes(tombstone)}


def make_cargo(root: Path, large: int) -> Cargo:
    """A new spool; ``large`` is the size of the one archive that is, in bytes."""
    chance = random.Random(5)  # noqa: S311 - the same in every run
    spool = new_spool(root)
    for number, bundle_id in enumerate(SMALL, 1):
        add_bundle(spool, chance.randbytes(1000 * number), bundle_id=bundle_id)
    add_bundle(spool, chance.randbytes(large), bundle_id=LARGE)
    add_bundle(spool, b"evidence", bundle_id=ROTTEN).archive.write_bytes(b"evidenc3")
    gone = add_bundle(spool, b"gone", bundle_id=GONE)
    spool.remove(gone, make_tombstone(gone, gone.manifest(), "2026-01-02T03:04:05+00:00"))
    return read_cargo(root)


def read_cargo(root: Path) -> Cargo:
    """What `make_cargo` has made, wherever it is now; shipping takes nothing away from it."""
    found = {bundle.id: bundle for bundle in Spool(root).finished()}
    return Cargo(root, tuple(delivery_of(found[bundle_id]) for bundle_id in GOOD))


def broken_spool(spool: Spool, cargo: Cargo) -> Iterator[str]:
    """In which ways a spool is not that of ``cargo`` when all is shipped: each bundle has met its
    own fate only, receipts are true, and nothing is left over."""
    parts = {f"{one}{suffix}" for one in GOOD for suffix in (ARCHIVE, DONE, SHIPPED)}
    parts |= {f"{ROTTEN}{suffix}" for suffix in (ARCHIVE, DONE, QUARANTINED)}
    parts |= {f"{GONE}{suffix}" for suffix in (EVICTED, EVICTED_SHIPPED)}
    found = {path.name for path in spool.batches.iterdir()}
    yield from (f"not in the spool: {name}" for name in sorted(parts - found))
    yield from (f"left in the spool: {name}" for name in sorted(found - parts))
    for delivery in cargo.good:
        yield from _broken_receipt(spool.path(delivery.id, SHIPPED), delivery)
    counts = spool.counts()
    fates = (counts.made, counts.delivered, counts.pending, counts.evicted, counts.quarantined)
    if fates != (len(GOOD) + 2, len(GOOD), 0, 1, 1):
        yield f"the counts are not true: {counts}"


def _broken_receipt(path: Path, delivery: Delivery) -> Iterator[str]:
    if not path.exists():
        return
    receipt: dict[str, Any] = json.loads(path.read_bytes())
    said = [receipt.get(name) for name in ("key", "manifest_key", "sha256", "size")]
    if said != [delivery.keys.archive, delivery.keys.manifest, delivery.sha256, delivery.size]:
        yield f"a receipt for something else: {receipt}"
