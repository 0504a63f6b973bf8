"""Bounds of age and size, on a real spool with a clock in the test's hand."""

from __future__ import annotations

import json
import os
import shutil
import stat
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.configuration.schema import CleanupConfig
from agent.storage.durable_file import temporary_beside
from agent.storage.free_space import MEGABYTE, DiskNearlyFullError, DiskSpace, FreeSpace
from agent.storage.space_watcher import DAY_SEC, Clock, SpaceWatcher
from agent.storage.spool import ARCHIVE, DONE, EVICTED, SHIPPED, Spool, SpooledBundle
from agent.storage.ulid import new_ulid
from tests.evidence import Journal, wait_until

NOW = 1_750_000_000.0
CONFIG = CleanupConfig(
    max_log_age_days=2, max_total_log_size_mb=1, cleanup_interval_sec=60, min_free_mb=0
)
TENTH = MEGABYTE // 10


@dataclass
class SetClock:
    """Moves only when told."""

    wall: float = NOW
    steady: float = 1_000.0

    def pass_time(self, seconds: float) -> None:
        self.wall += seconds
        self.steady += seconds


class Bench:
    """A spool with its watcher."""

    def __init__(self, directory: Path) -> None:
        self.spool = Spool(directory / "spool")
        self.spool.prepare()
        self.journal = Journal(directory)
        self.time = SetClock()
        self.watcher = self.make_watcher(CONFIG)

    def make_watcher(self, config: CleanupConfig) -> SpaceWatcher:
        clock = Clock(lambda: self.time.wall, lambda: self.time.steady)
        self.watcher = SpaceWatcher(self.spool, config, self.journal.audit, clock)
        return self.watcher

    def add(
        self, age_sec: float, size: int = 1_000, shipped: bool = False, quarantined: bool = False
    ) -> SpooledBundle:
        bundle_id = new_ulid(int((self.time.wall - age_sec) * 1000))
        temporary = temporary_beside(self.spool.path(bundle_id, ARCHIVE))
        temporary.write_bytes(b"x" * size)
        manifest = {
            "id": bundle_id,
            "host": "client-7",
            "anomaly": "latency",
            "incident": {"id": "the-incident"},
            "archive": {"size": size, "sha256": "ab" * 32},
        }
        bundle = self.spool.publish(bundle_id, temporary, manifest)
        if shipped:
            self.spool.write_receipt(bundle_id, {"key": "k"})
        if quarantined:
            self.spool.mark_quarantined(bundle_id, {"reason": "its sha256 is not the manifest's"})
        return bundle

    def fill(self, bundles: int, **how: bool) -> list[str]:
        """Ids of so many new bundles, each a tenth of the limit, the oldest first."""
        return [self.add(100 - number, TENTH, **how).id for number in range(bundles)]

    def left(self) -> list[str]:
        return [bundle.id for bundle in self.spool.finished()]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.journal.close()


def test_age_removes_what_was_shipped_and_nothing_else(bench: Bench) -> None:
    waiting = bench.add(400 * DAY_SEC), bench.add(300 * DAY_SEC, quarantined=True)
    bench.add(2 * DAY_SEC + 10, shipped=True)
    young = bench.add(2 * DAY_SEC - 10, shipped=True)
    assert bench.watcher.clean()
    assert bench.left() == [*(bundle.id for bundle in waiting), young.id]
    counts = bench.spool.counts()
    assert (counts.made, counts.delivered, counts.pending, counts.quarantined) == (4, 2, 1, 1)
    assert (bench.watcher.statistics().removed, bench.watcher.statistics().evicted) == (1, 0)


def test_from_ninety_percent_on_shipped_ones_go_until_half_is_left(bench: Bench) -> None:
    ids = bench.fill(9, shipped=True)
    bench.watcher.clean()
    assert bench.left() == ids
    ids.append(bench.add(1, TENTH, shipped=True).id)
    bench.watcher.clean()
    assert bench.left() == ids[5:], "the oldest went"
    assert bench.spool.counts().total_bytes <= MEGABYTE / 2


def test_shipped_bundles_go_first_even_when_younger(bench: Bench) -> None:
    waiting = bench.fill(6)
    for number in range(5):
        bench.add(50 - number, TENTH, shipped=True)
    bench.watcher.clean()
    assert bench.left() == waiting
    assert bench.spool.counts().evicted == 0


def test_up_to_the_limit_no_unshipped_bundle_goes(bench: Bench) -> None:
    ids = bench.fill(10)
    bench.watcher.clean()
    assert bench.left() == ids
    ids.append(bench.add(1, TENTH).id)
    bench.watcher.clean()
    assert bench.left() == ids[2:], "the oldest went, until 90 % was left"
    assert bench.spool.counts().total_bytes <= MEGABYTE * 0.9


def test_quarantined_bundles_go_before_the_others(bench: Bench) -> None:
    old = bench.fill(9)
    bad = bench.add(2, TENTH, quarantined=True), bench.add(1, TENTH, quarantined=True)
    bench.watcher.clean()
    assert bench.left() == old
    assert json.loads(bench.spool.path(bad[0].id, EVICTED).read_text())["quarantined"] is True
    counts = bench.spool.counts()
    assert (counts.evicted, counts.quarantined, counts.made) == (2, 0, 11)


def test_one_bundle_above_the_limit_goes(bench: Bench) -> None:
    bench.add(1, size=2 * MEGABYTE)
    assert not bench.watcher.clean()
    assert bench.left() == []


def test_an_unshipped_eviction_leaves_a_tombstone_and_an_audit_entry(bench: Bench) -> None:
    evicted = bench.add(100, size=2 * MEGABYTE)
    bench.watcher.clean()
    tombstone = json.loads(bench.spool.path(evicted.id, EVICTED).read_text())
    assert tombstone.pop("evicted_at").startswith("2025-06-15T15:06:40")
    assert tombstone == {
        "schema": 1,
        "id": evicted.id,
        "reason": "size",
        "quarantined": False,
        "size": 2 * MEGABYTE,
        "sha256": "ab" * 32,
        "host": "client-7",
        "anomaly": "latency",
        "incident": "the-incident",
    }
    (entry,) = bench.journal.entries()
    assert (entry["AOD_EVENT"], entry["AOD_BUNDLE"]) == ("eviction", evicted.id)
    assert entry["AOD_INCIDENT"] == "the-incident"


@pytest.mark.parametrize("marker_went", [False, True])
def test_a_removal_that_was_cut_off_is_finished_without_a_new_tombstone(
    bench: Bench, marker_went: bool
) -> None:
    bundle = bench.add(10)
    grave = bench.spool.path(bundle.id, EVICTED)
    grave.write_text('{"reason": "size"}')
    if marker_went:
        bundle.done.unlink()
        bench.spool.recover()
    bench.watcher.clean()
    assert not bundle.archive.exists()
    assert not bundle.done.exists()
    assert grave.read_text() == '{"reason": "size"}'
    assert bench.spool.counts().evicted == bench.spool.counts().made == 1


class Low(FreeSpace):
    """Less free than the floor, by ``missing`` bytes and what was removed meanwhile."""

    def __init__(self, missing: int) -> None:
        super().__init__(Path("/"), 1)
        self.missing = missing

    def look(self) -> DiskSpace:
        return DiskSpace(MEGABYTE - self.missing, MEGABYTE)


def test_below_the_floor_shipped_bundles_go_until_it_is_reached(bench: Bench) -> None:
    shipped = bench.fill(4, shipped=True)
    waiting = bench.add(200 * DAY_SEC)
    bench.watcher.free_space = Low(missing=TENTH + 1)
    bench.watcher.clean()
    assert bench.left() == [waiting.id, *shipped[2:]]


def test_below_the_floor_unshipped_bundles_stay(bench: Bench) -> None:
    bench.fill(2, shipped=True)
    waiting = [*bench.fill(2), bench.add(1, quarantined=True).id]
    bench.watcher.free_space = Low(missing=MEGABYTE)
    bench.watcher.clean()
    assert bench.left() == waiting


def test_other_settings_reach_the_floor(bench: Bench) -> None:
    bench.watcher.reconfigure(CleanupConfig(min_free_mb=1e12))
    with pytest.raises(DiskNearlyFullError):
        bench.watcher.free_space.room_for_bundle()


def test_what_is_old_is_folded_and_counted(bench: Bench) -> None:
    for age_days in (30, 20):
        receipt = bench.spool.path(bench.add(age_days * DAY_SEC, shipped=True).id, SHIPPED)
        os.utime(receipt, (bench.time.wall - 20 * DAY_SEC,) * 2)
    assert not bench.watcher.clean()
    assert bench.watcher.statistics().folded == 1
    assert (bench.spool.counts().made, bench.spool.counts().delivered) == (2, 2)
    assert len(list(bench.spool.batches.iterdir())) == 1


def test_unfinished_archives_are_neither_counted_nor_touched(bench: Bench) -> None:
    unfinished = bench.add(0, size=2 * MEGABYTE)
    unfinished.done.unlink()
    small = bench.add(0)
    bench.watcher.clean()
    assert unfinished.archive.exists()
    assert bench.left() == [small.id]


@pytest.mark.parametrize("jump_sec", [400 * DAY_SEC, -400 * DAY_SEC])
def test_a_clock_that_jumps_makes_no_bundle_old(bench: Bench, jump_sec: float) -> None:
    before = bench.add(0, shipped=True)
    bench.time.wall += jump_sec
    after = bench.add(0, shipped=True)
    bench.watcher.clean()
    assert set(bench.left()) == {before.id, after.id}


def test_time_that_passes_does(bench: Bench) -> None:
    bench.add(0, shipped=True)
    bench.time.pass_time(2 * DAY_SEC + 10)
    bench.watcher.clean()
    assert bench.left() == []


def test_an_unreadable_marker_keeps_no_archive(bench: Bench) -> None:
    bundle = bench.add(1, size=2 * MEGABYTE)
    bundle.done.write_bytes(b"\xff not json")
    bench.watcher.clean()
    assert bench.left() == []
    assert json.loads(bench.spool.path(bundle.id, EVICTED).read_text())["host"] is None


def test_one_that_cannot_be_removed_keeps_no_other(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault of ours: a file that the kernel refuses to remove, as on a damaged file system."""
    stuck = bench.add(3 * DAY_SEC, shipped=True)
    other = bench.add(2.5 * DAY_SEC, shipped=True)
    real_unlink = Path.unlink

    def refuse(path: Path, missing_ok: bool = False) -> None:
        if path == stuck.done:
            raise OSError(5, "Input/output error")
        real_unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", refuse)
    assert bench.watcher.clean()
    assert bench.left() == [stuck.id]
    assert not bench.spool.path(other.id, DONE).exists()
    assert bench.watcher.statistics().failed == 1
    assert "Input/output" in bench.watcher.statistics().last_failure


def test_a_vanished_spool_is_made_anew_and_counted(bench: Bench) -> None:
    shutil.rmtree(bench.spool.root)
    assert not bench.watcher.clean()
    assert bench.spool.batches.is_dir()
    assert bench.watcher.statistics().spool_recreated == 1
    assert bench.journal.entries()[0]["AOD_EVENT"] == "spool_recreated"


def test_an_emptied_spool_is_made_anew_and_counted(bench: Bench) -> None:
    """A service may be unable to make the spool's own directory: its content is enough."""
    for directory in (bench.spool.batches, bench.spool.staging):
        shutil.rmtree(directory)
    assert not bench.watcher.clean()
    assert stat.S_IMODE(bench.spool.batches.stat().st_mode) == 0o3770
    assert bench.spool.staging.is_dir()
    assert bench.watcher.statistics().spool_recreated == 1


def test_a_spool_that_cannot_be_made_is_survived(bench: Bench) -> None:
    shutil.rmtree(bench.spool.root)
    bench.spool.root.write_text("in the way")
    assert bench.watcher.clean(), "it must be looked at again"
    assert bench.watcher.statistics().failed == 1


def test_the_thread_cleans_when_woken_and_ends_when_stopped(bench: Bench) -> None:
    thread = threading.Thread(target=bench.watcher.run)
    thread.start()
    bench.add(3 * DAY_SEC, shipped=True)
    bench.watcher.wake()
    wait_until(lambda: bench.watcher.statistics().removed == 1)
    bench.watcher.stop()
    thread.join(20)
    assert not thread.is_alive()


def test_the_thread_looks_again_by_itself_while_there_are_bundles(bench: Bench) -> None:
    watcher = bench.make_watcher(CleanupConfig(cleanup_interval_sec=0.02))
    bench.add(1 * DAY_SEC, shipped=True)
    thread = threading.Thread(target=watcher.run)
    thread.start()
    bench.time.pass_time(1.5 * DAY_SEC)
    wait_until(lambda: watcher.statistics().removed == 1)
    watcher.stop()
    thread.join(20)


def test_stopped_before_the_start_it_does_not_hang(bench: Bench) -> None:
    bench.watcher.stop()
    thread = threading.Thread(target=bench.watcher.run)
    thread.start()
    thread.join(20)
    assert not thread.is_alive()
