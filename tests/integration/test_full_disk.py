"""A disk that is really full: a small tmpfs, filled to the page."""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.collection.log_collector import LogCollector
from agent.collection.quick_action import Command, Kind, QuickAction
from agent.collection.surroundings import HostFacts, Surroundings
from agent.configuration.schema import CleanupConfig, CollectionConfig
from agent.storage.free_space import MEGABYTE, DiskNearlyFullError
from agent.storage.space_watcher import SpaceWatcher
from agent.storage.spool import EVICTED, Spool
from agent.storage.tombstone import read_tombstone
from tests.evidence import Journal, make_action, make_events, wait_until

PAGE = 4096
HOST = HostFacts("client-7", "6.1.0-test", "9.9.9")
HELLO = QuickAction(
    "hello", "hello.log", Kind.CMD, lambda _: [Command(("echo", "hello"))], "for a test"
)

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting a tmpfs needs root")


class SmallDisk:
    """A tmpfs of a megabyte."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.filler = path / "filler"

    def free_pages(self) -> int:
        return os.statvfs(self.path).f_bavail

    def fill(self, leave_pages: int) -> None:
        """Take all space but ``leave_pages``."""
        with self.filler.open("wb") as file:
            file.write(b"x" * PAGE * (self.free_pages() - leave_pages))
        assert self.free_pages() == leave_pages

    def release(self) -> None:
        self.filler.unlink()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    path = tmp_path / "disk"
    path.mkdir()
    options = ["-o", "size=1m,mode=0700"]
    mounted = subprocess.run(["mount", "-t", "tmpfs", *options, "none", path], check=False)
    if mounted.returncode != 0:
        pytest.skip("this machine does not let root mount a tmpfs")
    yield SmallDisk(path)
    subprocess.run(["umount", path], check=True)


@pytest.fixture
def spool(disk: SmallDisk) -> Spool:
    spool = Spool(disk.path / "spool")
    spool.prepare()
    return spool


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(tmp_path)
    yield journal
    journal.close()


@pytest.fixture
def collector(spool: Spool, journal: Journal) -> Iterator[LogCollector]:
    """A collector that runs until the test's end."""
    surroundings = Surroundings(HOST, actions=[HELLO])
    collector = LogCollector(spool, CollectionConfig(after_sec=0), journal.audit, surroundings)
    thread = threading.Thread(target=collector.run)
    thread.start()
    yield collector
    collector.stop()
    thread.join(60)


def collect(collector: LogCollector) -> bool:
    """Whether it became a bundle."""
    before = collector.statistics()
    collector.submit(make_action(make_events(300), actions=("hello",)))
    wait_until(lambda: fates(collector) > before.collected + before.failed)
    return collector.statistics().collected > before.collected


def fates(collector: LogCollector) -> int:
    """Orders that have ended."""
    return collector.statistics().collected + collector.statistics().failed


def test_wherever_the_space_ends_there_is_a_whole_bundle_or_none(
    disk: SmallDisk, spool: Spool, journal: Journal, collector: LogCollector
) -> None:
    outcomes, events = [], []
    for pages in range(0, 60, 2):
        disk.fill(leave_pages=pages)
        finished = len(spool.finished())
        outcomes.append(collect(collector))
        assert list(spool.staging.iterdir()) == []
        assert len(spool.finished()) == finished + outcomes[-1]
        assert len(list(spool.batches.iterdir())) == 2 * len(spool.finished())
        disk.release()
        events += [entry["AOD_EVENT"] for entry in journal.entries()]
    assert outcomes[0] is False
    assert outcomes[-1] is True
    assert "No space left" in collector.statistics().last_failure
    assert collector.statistics().failed == outcomes.count(False)
    assert collect(collector), "with space again, the next one is fine"
    for bundle in spool.finished():
        archive = bundle.manifest()["archive"]
        assert archive["sha256"] == hashlib.sha256(bundle.archive.read_bytes()).hexdigest()
    assert events.count("collection_failed") == outcomes.count(False)


def test_a_full_disk_can_be_cleaned(disk: SmallDisk, spool: Spool, journal: Journal) -> None:
    make_bundles(spool, journal, 5)
    disk.fill(leave_pages=0)
    config = CleanupConfig(
        max_total_log_size_mb=spool.counts().total_bytes * 0.7 / MEGABYTE, min_free_mb=0
    )
    watcher = SpaceWatcher(spool, config, journal.audit)
    watcher.clean()
    counts = spool.counts()
    assert (counts.made, counts.evicted, counts.pending) == (5, 2, 3)
    assert counts.evicted == watcher.statistics().evicted
    assert watcher.statistics().failed == 0
    assert disk.free_pages() > 0
    for bundle_id in spool.undelivered_tombstones():
        tombstone = read_tombstone(bundle_id, spool.path(bundle_id, EVICTED).read_bytes())
        assert (tombstone["host"], tombstone["reason"]) == ("client-7", "size")
        assert len(tombstone["sha256"]) == 64
        assert tombstone["incident"]


def test_below_the_floor_delivered_bundles_make_room_and_then_none_is_begun(
    disk: SmallDisk, spool: Spool, journal: Journal
) -> None:
    make_bundles(spool, journal, 3)
    delivered, *waiting = spool.finished()
    spool.write_receipt(delivered.id, {})
    free_mb = disk.free_pages() * PAGE / MEGABYTE
    watcher = SpaceWatcher(
        spool, CleanupConfig(max_log_age_days=3650, min_free_mb=free_mb), journal.audit
    )
    watcher.free_space.room_for_bundle()
    watcher.clean()
    assert len(spool.finished()) == 3, "at the floor, nothing has to go"
    disk.fill(leave_pages=1)
    with pytest.raises(DiskNearlyFullError, match=r"cleanup\.min_free_mb") as caught:
        watcher.free_space.room_for_bundle()
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(spool.root))
    watcher.clean()
    assert [bundle.id for bundle in spool.finished()] == [bundle.id for bundle in waiting]
    assert spool.counts().evicted == 0
    disk.release()
    watcher.free_space.room_for_bundle()


def make_bundles(spool: Spool, journal: Journal, number: int) -> None:
    collector = LogCollector(
        spool, CollectionConfig(after_sec=0), journal.audit, Surroundings(HOST)
    )
    for _ in range(number):
        collector.submit(make_action(make_events(300)))
    collector.stop()
    collector.run()
    assert spool.counts().pending == number
