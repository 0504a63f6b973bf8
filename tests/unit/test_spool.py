"""The contract of the spool: whole bundles only, hostile names harmless, counts always true."""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from agent.storage import durable_file
from agent.storage.durable_file import UnsafeFileError, temporary_beside
from agent.storage.folding import FOLD_AFTER_SEC, Folding
from agent.storage.spool import (
    ARCHIVE,
    DONE,
    EVICTED,
    EVICTED_SHIPPED,
    SHIPPED,
    Spool,
    SpooledBundle,
)
from agent.storage.ulid import is_ulid, new_ulid, ulid_time_ms
from tests.rights import NOBODY, unprivileged

# Thousands of files are made here, and every one is synced.
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    spool = Spool(tmp_path / "spool")
    spool.prepare()
    return spool


def add(spool: Spool, size: int = 10, time_ms: int | None = None) -> SpooledBundle:
    bundle_id = new_ulid(time_ms)
    temporary = temporary_beside(spool.path(bundle_id, ARCHIVE))
    temporary.write_bytes(b"x" * size)
    return spool.publish(bundle_id, temporary, {"id": bundle_id})


def names(spool: Spool) -> set[str]:
    return {path.name for path in spool.batches.iterdir()}


def test_directories_are_made_once_and_closed_to_others(spool: Spool) -> None:
    spool.prepare()
    assert stat.S_IMODE(spool.root.stat().st_mode) & 0o007 == 0
    assert stat.S_IMODE(spool.batches.stat().st_mode) == 0o3770


def test_a_run_killed_before_it_opened_the_directory_is_made_good(spool: Spool) -> None:
    spool.batches.chmod(0o750)
    spool.prepare()
    assert stat.S_IMODE(spool.batches.stat().st_mode) == 0o3770


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives directories away")
def test_the_directory_of_another_user_is_left_as_it_is(spool: Spool) -> None:
    spool.batches.chmod(0o770)
    os.chown(spool.batches, NOBODY, -1)
    spool.prepare()
    assert stat.S_IMODE(spool.batches.stat().st_mode) == 0o770


def test_a_published_bundle_is_found_with_its_manifest(spool: Spool) -> None:
    bundle = add(spool, size=33)
    assert spool.finished() == [bundle] == spool.pending()
    assert bundle.size == 33
    assert bundle.manifest() == {"id": bundle.id}
    assert names(spool) == {bundle.id + ARCHIVE, bundle.id + DONE}


def test_oldest_first_whatever_the_order_of_making(spool: Spool) -> None:
    ids = [add(spool, time_ms=time_ms).id for time_ms in (3_000, 1_000, 2_000)]
    assert [bundle.id for bundle in spool.finished()] == [ids[1], ids[2], ids[0]]
    assert [bundle.time_ms for bundle in spool.finished()] == [1_000, 2_000, 3_000]


def test_a_receipt_ends_the_waiting(spool: Spool) -> None:
    bundle = add(spool)
    spool.write_receipt(bundle.id, {"key": "k"})
    assert spool.pending() == []
    assert [finished.shipped for finished in spool.finished()] == [True]


def test_an_unshipped_bundle_is_not_removed_without_a_tombstone(spool: Spool) -> None:
    bundle = add(spool)
    with pytest.raises(ValueError, match="tombstone"):
        spool.remove(bundle, None)
    assert spool.finished() == [bundle]


def test_removal_leaves_the_receipt_or_the_tombstone(spool: Spool) -> None:
    shipped, evicted = add(spool), add(spool)
    spool.write_receipt(shipped.id, {})
    spool.remove(next(b for b in spool.finished() if b.id == shipped.id), None)
    spool.remove(evicted, {"reason": "size"})
    assert names(spool) == {shipped.id + SHIPPED, evicted.id + EVICTED}
    assert json.loads(spool.path(evicted.id, EVICTED).read_text()) == {"reason": "size"}
    counts = spool.counts()
    assert (counts.made, counts.delivered, counts.pending, counts.evicted) == (2, 1, 0, 1)


def test_a_tombstone_is_never_written_anew(spool: Spool) -> None:
    """The store may have it already."""
    grave = spool.path(add(spool).id, EVICTED)
    grave.write_text("{}")
    (half_evicted,) = spool.finished()
    spool.remove(half_evicted, {"reason": "another"})
    assert grave.read_text() == "{}"
    assert names(spool) == {grave.name}


def test_a_bundle_evicted_as_soon_as_it_is_visible_was_published(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_bytes = durable_file.publish_bytes

    def publish_and_evict(final: Path, data: bytes) -> None:
        publish_bytes(final, data)
        if final.suffix == DONE:
            for bundle in spool.finished():
                spool.remove(bundle, {"reason": "size"})

    monkeypatch.setattr(durable_file, "publish_bytes", publish_and_evict)
    bundle = add(spool, size=33)
    assert bundle.size == 33
    assert names(spool) == {bundle.id + EVICTED}


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_on_a_full_disk_the_marker_becomes_the_tombstone(
    spool: Spool, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """A fault of ours: else cleaning would need space in order to make space."""
    bundle = add(spool)

    def full(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(durable_file, "publish_bytes", full)
    spool.remove(bundle, {"reason": "size"})
    assert names(spool) == {bundle.id + EVICTED}
    assert spool.counts().evicted == 1


@pytest.mark.parametrize(
    "name",
    ["../../etc/passwd", "..", "", "a/b", "01ARZ3NDEKTSV4RRFFQ69G5FA", "x" * 26, "-rf", "\0" * 26],
)
def test_names_that_are_no_ulid_make_no_path(spool: Spool, name: str) -> None:
    with pytest.raises(ValueError, match="not a bundle id"):
        spool.path(name, ARCHIVE)


def test_foreign_files_are_no_bundles(spool: Spool, tmp_path: Path) -> None:
    for name in ("notes.txt", "x.done", ".hidden", "8ZZZ.done", f"{new_ulid()}.DONE", "\n.done"):
        (spool.batches / name).write_text("{}")
    directory, linked = new_ulid(), new_ulid()
    (spool.batches / f"{directory}{DONE}").mkdir()
    (spool.batches / f"{directory}{ARCHIVE}").mkdir()
    (tmp_path / "secret").write_text("{}")
    for suffix in (DONE, ARCHIVE, SHIPPED, EVICTED):
        (spool.batches / f"{linked}{suffix}").symlink_to(tmp_path / "secret")
    os.mkfifo(spool.batches / f"{new_ulid()}{DONE}")
    assert spool.finished() == []
    assert spool.counts().made == 0


def test_a_marker_swapped_for_a_link_is_not_read(spool: Spool, tmp_path: Path) -> None:
    bundle = add(spool)
    (tmp_path / "secret").write_text('{"a": 1}')
    bundle.done.unlink()
    bundle.done.symlink_to(tmp_path / "secret")
    with pytest.raises(UnsafeFileError):
        bundle.manifest()


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe", b"null"])
def test_a_broken_marker_is_a_value_error(spool: Spool, content: bytes) -> None:
    bundle = add(spool)
    bundle.done.write_bytes(content)
    with pytest.raises(ValueError):  # noqa: PT011 - of several kinds, all of them ValueErrors
        bundle.manifest()


def test_a_vanished_spool_is_an_empty_one(spool: Spool) -> None:
    shutil.rmtree(spool.root)
    assert spool.finished() == []
    assert spool.counts().made == 0


def test_counts_of_what_is_no_directory_say_so(spool: Spool) -> None:
    spool.batches.rmdir()
    spool.batches.write_text("in the way")
    counts = spool.counts()
    assert "Not a directory" in counts.fault
    assert counts.made == 0


def test_counts_of_what_may_not_be_read_say_so(spool: Spool) -> None:
    with unprivileged(spool.root):
        assert "Permission denied" in spool.counts().fault
    assert spool.counts().fault == ""


def test_recovery_in_a_foreign_directory_removes_nothing_foreign(tmp_path: Path) -> None:
    (tmp_path / "staging" / "environment").mkdir(parents=True)
    (tmp_path / "staging" / "environment" / "site.yml").touch()
    (tmp_path / "staging" / "notes.txt").touch()
    (tmp_path / "staging" / new_ulid()).touch()
    (tmp_path / "batches").mkdir()
    (tmp_path / "batches" / ".hidden.tmp").touch()
    before = set(tmp_path.rglob("*"))
    spool = Spool(tmp_path)
    spool.prepare()
    assert spool.recover() == []
    assert set(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("/")])
def test_recovery_survives_what_is_no_file(spool: Spool, make: Callable[[Path], None]) -> None:
    archive = spool.path(new_ulid(), ARCHIVE)
    for path in (archive, temporary_beside(archive), temporary_beside(archive.with_suffix(DONE))):
        make(path)
    before = names(spool)
    assert spool.recover() == []
    assert names(spool) == before


def test_recovery_removes_what_was_not_finished_and_nothing_else(
    spool: Spool, tmp_path: Path
) -> None:
    whole, shipped = add(spool), add(spool)
    spool.write_receipt(shipped.id, {})
    without_marker, half_removed = add(spool), add(spool)
    without_marker.done.unlink()
    half_removed.done.unlink()
    spool.path(half_removed.id, EVICTED).write_text("{}")
    temporary = temporary_beside(spool.path(new_ulid(), ARCHIVE))
    temporary.write_bytes(b"half")
    being_shipped = temporary_beside(spool.path(whole.id, SHIPPED))
    being_shipped.write_bytes(b"the shipper is at work")
    being_noted = temporary_beside(spool.path(whole.id, EVICTED_SHIPPED))
    being_noted.write_bytes(b"the shipper is at work")
    staged = spool.staging / new_ulid()
    staged.mkdir()
    (staged / "stats").write_text("x")
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").touch()
    link = spool.staging / new_ulid()
    link.symlink_to(precious)
    before = spool.counts()
    removed = spool.recover()
    assert set(removed) == {
        without_marker.archive.name,
        half_removed.archive.name,
        temporary.name,
    }
    assert spool.staging_directories() == [staged]
    assert spool.counts() == before
    assert spool.finished() == [whole, *(b for b in spool.finished() if b.id == shipped.id)]
    assert set(spool.staging.iterdir()) == {link, staged}
    assert (precious / "file").exists()
    assert being_shipped.exists()
    assert being_noted.exists()
    assert spool.recover() == []


def test_ulids_sort_by_time_and_tell_it() -> None:
    ids = [new_ulid(time_ms) for time_ms in range(1_700_000_000_000, 1_700_000_000_050)]
    assert sorted(ids) == ids
    assert all(is_ulid(i) for i in ids)
    assert [ulid_time_ms(i) for i in ids] == list(range(1_700_000_000_000, 1_700_000_000_050))


@contextlib.contextmanager
def dying_at_removal(number: int) -> Iterator[None]:
    """The removal of that number, and all after it, do not happen; 0: all do."""

    class Killed(BaseException):
        pass

    real_unlink, seen = Path.unlink, []

    def deadly(path: Path, missing_ok: bool = False) -> None:
        seen.append(path)
        if 0 < number <= len(seen):
            raise Killed
        real_unlink(path, missing_ok)

    Path.unlink = deadly
    try:
        yield
    except Killed:
        pass
    finally:
        Path.unlink = real_unlink


class SpoolMachine(RuleBasedStateMachine):
    """Agent, shipper, cleaning, folding and crashes in any order, against a model of three sets.

    ``marked`` is a part of ``pending``.
    """

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(dir=MEMORY))
        self.spool = Spool(self.root / "spool")
        self.spool.prepare()
        self.times = itertools.count(1_700_000_000_000)
        self.pending: set[str] = set()
        self.marked: set[str] = set()
        self.delivered: set[str] = set()
        self.evicted: set[str] = set()

    def teardown(self) -> None:
        shutil.rmtree(self.root)

    @rule(size=st.integers(0, 50))
    def make(self, size: int) -> None:
        self.pending.add(add(self.spool, size, next(self.times)).id)

    @rule()
    def make_and_deliver(self) -> None:
        bundle = add(self.spool, 1, next(self.times))
        self.spool.write_receipt(bundle.id, {})
        self.spool.remove(self.spool.finished()[-1], None)
        self.delivered.add(bundle.id)

    @rule(told=st.booleans())
    def make_and_evict(self, told: bool) -> None:
        bundle = add(self.spool, 1, next(self.times))
        self.spool.remove(bundle, {})
        if told:
            self.spool.note_tombstone_delivered(bundle.id, {})
        self.evicted.add(bundle.id)

    @precondition(lambda self: self.spool.undelivered_tombstones())
    @rule(data=st.data())
    def deliver_what_was_evicted_meanwhile(self, data: st.DataObject) -> None:
        bundle_id = data.draw(st.sampled_from(self.spool.undelivered_tombstones()))
        self.spool.write_receipt(bundle_id, {})
        self.pending.discard(bundle_id)
        self.evicted.discard(bundle_id)
        self.delivered.add(bundle_id)

    @rule(step=st.integers(0, 2))
    def crash_while_making(self, step: int) -> None:
        """Killed after writing a temporary archive, after its rename, or with a half marker."""
        bundle_id = new_ulid(next(self.times))
        final = self.spool.path(bundle_id, ARCHIVE)
        temporary = temporary_beside(final)
        temporary.write_bytes(b"half")
        (self.spool.staging / bundle_id).mkdir()
        if step >= 1:
            temporary.rename(final)
        if step >= 2:
            temporary_beside(final).write_bytes(b'{"id"')

    @precondition(lambda self: self.pending)
    @rule(data=st.data())
    def ship(self, data: st.DataObject) -> None:
        bundle_id = data.draw(st.sampled_from(sorted(self.pending)))
        self.spool.write_receipt(bundle_id, {})
        self.pending.remove(bundle_id)
        self.delivered.add(bundle_id)

    @precondition(lambda self: self.pending)
    @rule(data=st.data())
    def quarantine(self, data: st.DataObject) -> None:
        bundle_id = data.draw(st.sampled_from(sorted(self.pending)))
        self.spool.mark_quarantined(bundle_id, {"reason": "bad"})
        self.marked.add(bundle_id)

    @precondition(lambda self: self.spool.quarantined())
    @rule(data=st.data())
    def lift_a_quarantine(self, data: st.DataObject) -> None:
        bundle_id = data.draw(st.sampled_from(sorted(self.spool.quarantined())))
        self.spool.lift_quarantine(bundle_id)
        self.marked.discard(bundle_id)

    @precondition(lambda self: self.spool.undelivered_tombstones())
    @rule(data=st.data())
    def tell_the_store(self, data: st.DataObject) -> None:
        bundle_id = data.draw(st.sampled_from(self.spool.undelivered_tombstones()))
        self.spool.note_tombstone_delivered(bundle_id, {})

    @rule(age_ms=st.integers(0, 20), dies_at=st.integers(0, 12))
    def fold(self, age_ms: int, dies_at: int) -> None:
        """Of what was made until then; killed at that removal, if it comes so far."""
        for path in self.spool.batches.iterdir():
            os.utime(path, (0, 0))
        now_sec = (next(self.times) - age_ms) / 1000 + FOLD_AFTER_SEC
        with dying_at_removal(dies_at):
            Folding(self.spool).fold(now_sec)

    @precondition(lambda self: self.spool.finished())
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        bundle = data.draw(st.sampled_from(self.spool.finished()))
        self.spool.remove(bundle, None if bundle.shipped else {})
        if bundle.id in self.pending:
            self.pending.remove(bundle.id)
            self.evicted.add(bundle.id)
        elif not bundle.shipped:
            assert bundle.id in self.evicted

    @precondition(lambda self: self.pending)
    @rule(data=st.data(), steps=st.integers(0, 2))
    def crash_while_evicting(self, data: st.DataObject, steps: int) -> None:
        """Killed after the tombstone, or after the marker went."""
        bundle_id = data.draw(st.sampled_from(sorted(self.pending)))
        if steps >= 1:
            self.spool.path(bundle_id, EVICTED).write_text("{}")
            self.pending.remove(bundle_id)
            self.evicted.add(bundle_id)
        if steps >= 2:
            self.spool.path(bundle_id, DONE).unlink()

    @precondition(lambda self: self.spool.pending())
    @rule(data=st.data())
    def ship_what_is_half_evicted(self, data: st.DataObject) -> None:
        bundle = data.draw(st.sampled_from(self.spool.pending()))
        self.spool.write_receipt(bundle.id, {})
        for fate in (self.pending, self.evicted):
            fate.discard(bundle.id)
        self.delivered.add(bundle.id)

    @rule()
    def restart(self) -> None:
        self.spool = Spool(self.root / "spool")
        self.spool.prepare()
        self.spool.recover()
        for staged in self.spool.staging_directories():
            staged.rmdir()
        assert not [path for path in self.spool.batches.iterdir() if path.name.startswith(".")]

    @invariant()
    def counts_are_true(self) -> None:
        counts = self.spool.counts()
        assert counts.fault == ""
        fates = counts.delivered, counts.pending, counts.evicted, counts.quarantined
        assert counts.made == sum(fates)
        marked = self.pending & self.marked
        waiting = self.pending - marked
        assert fates == tuple(map(len, (self.delivered, waiting, self.evicted, marked)))

    @invariant()
    def what_is_finished_is_whole(self) -> None:
        for bundle in self.spool.finished():
            assert bundle.manifest() == {"id": bundle.id}
            assert bundle.archive.stat().st_size == bundle.size


SpoolMachine.TestCase.settings = settings(max_examples=200, stateful_step_count=30, deadline=None)
TestAnyOrderKeepsTheCountsTrue = SpoolMachine.TestCase
