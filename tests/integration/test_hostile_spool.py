"""A spool full of what does not belong there: nothing outside is touched, nothing foreign goes."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from agent.configuration.schema import CleanupConfig
from agent.service.audit import Audit
from agent.storage.durable_file import temporary_beside
from agent.storage.folding import FOLD_AFTER_SEC
from agent.storage.space_watcher import SpaceWatcher
from agent.storage.spool import (
    ARCHIVE,
    DONE,
    EVICTED,
    EVICTED_SHIPPED,
    HISTORY_FILE,
    QUARANTINED,
    SHIPPED,
    Spool,
    SpooledBundle,
)
from agent.storage.ulid import new_ulid
from shipper.destinations.directory_destination import DirectoryBucket
from tests.shipper_support import make_shipper

SUFFIXES = (ARCHIVE, DONE, SHIPPED, QUARANTINED, EVICTED, EVICTED_SHIPPED)
OLD_SEC = time.time() - 2 * FOLD_AFTER_SEC
# Everything that may go does.
STRICT = CleanupConfig(max_log_age_days=0.01, max_total_log_size_mb=1 / (1 << 20), min_free_mb=0)


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    spool = Spool(tmp_path / "spool")
    spool.prepare()
    return spool


@pytest.fixture
def precious(tmp_path: Path) -> Path:
    """A directory outside, with a file."""
    directory = tmp_path / "precious"
    directory.mkdir()
    (directory / "file").write_text('{"host": "secret"}')
    os.utime(directory / "file", (OLD_SEC, OLD_SEC))
    return directory


def watcher(spool: Spool) -> SpaceWatcher:
    return SpaceWatcher(spool, STRICT, Audit(enabled=False))


def add(spool: Spool) -> SpooledBundle:
    bundle_id = new_ulid(int(OLD_SEC * 1000))
    temporary = temporary_beside(spool.path(bundle_id, ARCHIVE))
    temporary.write_bytes(b"evidence")
    return spool.publish(bundle_id, temporary, {"id": bundle_id})


def old_file(path: Path) -> None:
    path.write_text("{}")
    os.utime(path, (OLD_SEC, OLD_SEC))


def old_id() -> str:
    return new_ulid(int(OLD_SEC * 1000))


def fill_with_foreign_things(spool: Spool, precious: Path) -> set[Path]:
    """Links, directories and pipes called like every part of a bundle, also beside real parts."""
    linked, in_directory, entered, piped = (old_id() for _ in range(4))
    for suffix in SUFFIXES:
        spool.path(linked, suffix).symlink_to(precious / "file")
        spool.path(in_directory, suffix).mkdir()
        (spool.path(in_directory, suffix) / "inside").touch()
        spool.path(entered, suffix).symlink_to(precious)
        os.mkfifo(spool.path(piped, suffix))
    # A link in the place of one part, real files in all the others.
    for odd in SUFFIXES:
        mixed = old_id()
        spool.path(mixed, odd).symlink_to(precious / "file")
        if odd == ARCHIVE:
            old_file(spool.path(mixed, DONE))
        elif odd == DONE:
            old_file(spool.path(mixed, ARCHIVE))
    for name in ("..done", "notes", "-rf", "a b\n.done", "\udcff.done", "x" * 200):
        (spool.batches / name).write_text("{}")
    return set(spool.batches.iterdir())


def snapshot(directory: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in directory.iterdir()}


def test_foreign_things_are_neither_followed_nor_counted_nor_removed(
    spool: Spool, precious: Path, tmp_path: Path
) -> None:
    foreign, outside = fill_with_foreign_things(spool, precious), snapshot(precious)
    assert spool.counts().made == 0
    delivered = add(spool)
    spool.write_receipt(delivered.id, {})
    evicted = add(spool)
    own = watcher(spool)
    own.clean()
    summary = make_shipper(spool, DirectoryBucket(tmp_path / "bucket")).ship_pending()
    assert [one.bundle_id for one in summary.tombstones] == [evicted.id]
    own.clean()
    assert set(spool.batches.iterdir()) - foreign == {
        spool.path(delivered.id, SHIPPED),
        spool.path(evicted.id, EVICTED),
        spool.path(evicted.id, EVICTED_SHIPPED),
    }
    assert foreign <= set(spool.batches.iterdir())
    assert snapshot(precious) == outside
    assert own.statistics().failed == 0
    counts = spool.counts()
    assert (counts.made, counts.delivered, counts.evicted) == (2, 1, 1)


@pytest.mark.parametrize("shipped", [True, False])
@pytest.mark.parametrize("part", [ARCHIVE, DONE])
def test_a_part_that_is_swapped_for_a_link_after_the_look_takes_nothing_with_it(
    spool: Spool, precious: Path, part: str, shipped: bool
) -> None:
    bundle = add(spool)
    if shipped:
        spool.write_receipt(bundle.id, {})
    (found,) = spool.finished()
    spool.path(bundle.id, part).unlink()
    spool.path(bundle.id, part).symlink_to(precious / "file")
    before = snapshot(precious)
    spool.remove(found, {"reason": "size"})
    assert snapshot(precious) == before
    assert not found.archive.is_symlink()
    assert not found.done.is_symlink()


@pytest.mark.parametrize("suffix", [SHIPPED, QUARANTINED, EVICTED, EVICTED_SHIPPED])
def test_writing_replaces_a_planted_link_instead_of_what_it_leads_to(
    spool: Spool, precious: Path, suffix: str
) -> None:
    bundle, before = add(spool), snapshot(precious)
    spool.path(bundle.id, suffix).symlink_to(precious / "file")
    if suffix == EVICTED:
        spool.remove(bundle, {"reason": "size"})
    else:
        write = {
            SHIPPED: spool.write_receipt,
            QUARANTINED: spool.mark_quarantined,
            EVICTED_SHIPPED: spool.note_tombstone_delivered,
        }[suffix]
        write(bundle.id, {})
    assert snapshot(precious) == before
    assert spool.path(bundle.id, suffix).is_file()
    assert not spool.path(bundle.id, suffix).is_symlink()


def test_a_history_that_is_a_link_is_not_followed(spool: Spool, precious: Path) -> None:
    for _ in range(2):
        old_file(spool.path(old_id(), SHIPPED))
    (spool.root / HISTORY_FILE).symlink_to(precious / "file")
    before = snapshot(precious)
    own = watcher(spool)
    own.clean()
    assert "symbolic link" in own.statistics().last_failure
    assert snapshot(precious) == before
    assert len(list(spool.batches.iterdir())) == 2, "nothing is folded into nowhere"


def test_ten_thousand_receipts_and_ten_thousand_foreign_files(spool: Spool) -> None:
    for number in range(10_000):
        (spool.batches / f"foreign-{number}.done").touch()
        old_file(spool.path(old_id(), SHIPPED))
    waiting = [add(spool) for _ in range(3)]
    assert spool.counts().made == 10_003
    own = SpaceWatcher(spool, CleanupConfig(min_free_mb=0), Audit(enabled=False))
    assert own.clean()
    assert own.statistics().folded == 9_999
    counts = spool.counts()
    assert (counts.made, counts.delivered, counts.pending) == (10_003, 10_000, 3)
    assert spool.finished() == sorted(waiting, key=lambda bundle: bundle.id)
    assert len(list(spool.batches.iterdir())) == 10_000 + 2 * 3 + 1
