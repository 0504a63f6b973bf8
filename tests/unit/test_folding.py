"""Old receipts and tombstones become two numbers; wherever that is cut off, no count is wrong."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.storage import durable_file
from agent.storage.durable_file import temporary_beside
from agent.storage.folding import FOLD_AFTER_SEC, Folding
from agent.storage.spool import (
    ARCHIVE,
    EVICTED,
    EVICTED_SHIPPED,
    HISTORY_FILE,
    QUARANTINED,
    SHIPPED,
    Spool,
    SpooledBundle,
)
from agent.storage.ulid import new_ulid

NOW = 1_750_000_000.0
OLD = NOW - FOLD_AFTER_SEC - 1


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    spool = Spool(tmp_path / "spool")
    spool.prepare()
    return spool


def add(spool: Spool, made_sec: float) -> SpooledBundle:
    bundle_id = new_ulid(int(made_sec * 1000))
    temporary = temporary_beside(spool.path(bundle_id, ARCHIVE))
    temporary.write_bytes(b"evidence")
    return spool.publish(bundle_id, temporary, {"id": bundle_id})


def date(path: Path, ended_sec: float) -> None:
    os.utime(path, (ended_sec, ended_sec))


def add_delivered(spool: Spool, made_sec: float = OLD, ended_sec: float = OLD) -> str:
    bundle = add(spool, made_sec)
    spool.write_receipt(bundle.id, {"key": "k"})
    spool.remove(bundle, {})
    date(spool.path(bundle.id, SHIPPED), ended_sec)
    spool.path(bundle.id, EVICTED).unlink()
    return bundle.id


def add_evicted(spool: Spool, told: bool = True, made_sec: float = OLD) -> str:
    bundle = add(spool, made_sec)
    spool.remove(bundle, {"reason": "size"})
    if told:
        spool.note_tombstone_delivered(bundle.id, {})
        date(spool.path(bundle.id, EVICTED_SHIPPED), OLD)
    return bundle.id


def names(spool: Spool) -> set[str]:
    return {path.name for path in spool.batches.iterdir()}


def fates(spool: Spool) -> tuple[int, int, int, int, int]:
    counts = spool.counts()
    assert counts.fault == ""
    fates = counts.delivered, counts.pending, counts.evicted, counts.quarantined
    assert counts.made == sum(fates)
    return (counts.made, *fates)


def test_old_ones_become_numbers(spool: Spool) -> None:
    for _ in range(3):
        add_delivered(spool)
    for _ in range(2):
        add_evicted(spool)
    youngest = add_delivered(spool, made_sec=OLD + 1)
    before = fates(spool)
    assert Folding(spool).fold(NOW) == 5
    assert fates(spool) == before == (6, 4, 0, 2, 0)
    assert names(spool) == {youngest + SHIPPED}, "the last delivery can still be told"
    history = json.loads((spool.root / HISTORY_FILE).read_bytes())
    assert history == {"delivered": 3, "evicted": 2, "folding": []}
    assert Folding(spool).fold(NOW) == 0


def test_what_is_young_or_not_over_stays(spool: Spool) -> None:
    add_delivered(spool, NOW)
    kept = {
        add_delivered(spool, made_sec=NOW - FOLD_AFTER_SEC + 60),
        add_delivered(spool, ended_sec=NOW - FOLD_AFTER_SEC + 60),
        add_evicted(spool, made_sec=NOW - FOLD_AFTER_SEC + 60),
        add_evicted(spool, told=False),
        add(spool, OLD).id,
    }
    spool.write_receipt(still_there := add(spool, OLD).id, {})
    date(spool.path(still_there, SHIPPED), OLD)
    before, files = fates(spool), names(spool)
    assert Folding(spool).fold(NOW) == 0
    assert (fates(spool), names(spool)) == (before, files)
    assert all(spool.was_made(bundle_id) for bundle_id in kept)
    assert not (spool.root / HISTORY_FILE).exists(), "nothing is written for nothing"


def test_an_evicted_one_that_arrived_all_the_same_counts_as_delivered(spool: Spool) -> None:
    both = add_evicted(spool, told=False)
    spool.write_receipt(both, {})
    spool.mark_quarantined(both, {})
    date(spool.path(both, SHIPPED), OLD)
    youngest = add_delivered(spool, NOW)
    before = fates(spool)
    Folding(spool).fold(NOW)
    assert fates(spool) == before == (2, 2, 0, 0, 0)
    assert names(spool) == {youngest + SHIPPED}


class Killed(BaseException):
    """The process is gone: nothing of it runs any more."""


CALLS = ((os, "fsync"), (os, "open"), (Path, "rename"), (Path, "unlink"))


@pytest.fixture
def killed_at(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """Have the n-th I/O call and all after it die before they do anything; 0: none."""
    seen = []

    def arm(number: int) -> None:
        monkeypatch.undo()
        seen.clear()
        for owner, name in CALLS if number else ():
            real = getattr(owner, name)

            def deadly(*arguments: object, _real: Callable = real, **options: object) -> object:
                seen.append(_real)
                if len(seen) >= number:
                    raise Killed
                return _real(*arguments, **options)

            monkeypatch.setattr(owner, name, deadly)

    yield arm
    monkeypatch.undo()


def test_killed_at_every_step_the_counts_are_true_and_the_next_run_goes_on(
    tmp_path: Path, killed_at: Callable[[int], None]
) -> None:
    number, steps = 0, 0
    while number == steps:
        number += 1
        spool = Spool(tmp_path / str(number))
        spool.prepare()
        for _ in range(3):
            add_delivered(spool)
            add_evicted(spool)
        add(spool, OLD)
        add_delivered(spool, NOW)
        before = fates(spool)
        killed_at(number)
        try:
            Folding(spool).fold(NOW)
        except Killed:
            steps = number
        killed_at(0)
        assert fates(spool) == before
        assert spool.undelivered_tombstones() == [], "the store would be told once more"
        again = Spool(spool.root)
        again.recover()
        Folding(again).fold(NOW)
        assert fates(again) == before == (8, 4, 1, 3, 0)
        assert len(names(again)) == 3, "a bundle, its marker, the last receipt"
        assert json.loads((spool.root / HISTORY_FILE).read_bytes())["folding"] == []
        assert [path.name for path in spool.root.iterdir() if path.name.startswith(".")] == []
    assert steps >= 15, "history, nine files, history"


def test_a_process_that_is_killed_between_any_two_files_loses_no_count(tmp_path: Path) -> None:
    """The same with a real end of a process, at every removal."""
    for number in range(1, 8):
        spool = Spool(tmp_path / str(number))
        spool.prepare()
        for _ in range(3):
            add_delivered(spool)
            add_evicted(spool)
        before = fates(spool)
        child = os.fork()
        if child == 0:
            fold_and_die(spool, number)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 17
        assert fates(spool) == before
        Folding(spool).fold(NOW)
        assert fates(spool) == before
        assert len(names(spool)) == 1


def fold_and_die(spool: Spool, number: int) -> None:
    """Ends the process before the removal of that number."""
    real_unlink, seen = Path.unlink, []

    def deadly(path: Path, missing_ok: bool = False) -> None:
        seen.append(path)
        if len(seen) == number:
            os._exit(17)
        real_unlink(path, missing_ok)

    Path.unlink = deadly
    Folding(spool).fold(NOW)
    os._exit(0)


def test_a_file_that_cannot_be_removed_is_counted_once_and_holds_no_other_back(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault of ours: a file that the kernel refuses to remove, as in another user's directory."""
    stuck, other = add_evicted(spool), add_evicted(spool)
    before, real_unlink = fates(spool), Path.unlink

    def refuse(path: Path, missing_ok: bool = False) -> None:
        if path.name == stuck + EVICTED:
            raise PermissionError(1, "Operation not permitted")
        real_unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", refuse)
    for _ in range(2):
        with pytest.raises(PermissionError):
            Folding(spool).fold(NOW)
        assert fates(spool) == before
        assert names(spool) == {stuck + EVICTED, stuck + EVICTED_SHIPPED}
        assert json.loads((spool.root / HISTORY_FILE).read_bytes())["folding"] == [stuck]
        assert not spool.was_made(other)
    monkeypatch.undo()
    Folding(spool).fold(NOW)
    assert (fates(spool), names(spool)) == (before, set())


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "null", "[" * 100_000, '{"delivered": 1}', "\xff"]
    + [
        json.dumps({"delivered": 1, "evicted": 1, "folding": [], **wrong})
        for wrong in (
            {"delivered": -1},
            {"evicted": "1"},
            {"delivered": True},
            {"folding": {}},
            {"folding": [1]},
        )
    ],
)
def test_a_history_that_makes_no_sense_is_said_and_not_replaced(spool: Spool, content: str) -> None:
    add_delivered(spool)
    add_delivered(spool, NOW)
    path = spool.root / HISTORY_FILE
    path.write_text(content)
    assert "is no history of a spool" in spool.counts().fault
    with pytest.raises(OSError, match="is no history"):
        Folding(spool).fold(NOW)
    assert path.read_text() == content
    path.unlink()
    assert fates(spool) == (2, 2, 0, 0, 0)


def test_a_history_behind_a_link_is_not_read(spool: Spool, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text('{"delivered": 9, "evicted": 9, "folding": []}')
    (spool.root / HISTORY_FILE).symlink_to(tmp_path / "elsewhere")
    assert "symbolic link" in spool.counts().fault


def test_the_group_may_read_the_history_and_others_may_not(spool: Spool) -> None:
    add_evicted(spool)
    Folding(spool).fold(NOW)
    assert stat.S_IMODE((spool.root / HISTORY_FILE).stat().st_mode) & 0o137 == 0


def test_a_count_that_a_fold_overtakes_is_taken_again(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_evicted(spool)
    add(spool, NOW)
    before, finished = fates(spool), Spool.finished
    folded = []

    def fold_meanwhile(self: Spool) -> list[SpooledBundle]:
        if not folded:
            folded.append(Folding(spool).fold(NOW))
        return finished(self)

    monkeypatch.setattr(Spool, "finished", fold_meanwhile)
    assert fates(spool) == before
    assert folded == [1]


def test_a_count_misses_no_bundle_that_goes_meanwhile(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The agent evicts and the shipper delivers between the two looks of a count."""
    bundles, finished = [add(spool, NOW) for _ in range(3)], Spool.finished

    def end_meanwhile(self: Spool) -> list[SpooledBundle]:
        found = finished(self)
        monkeypatch.undo()
        spool.write_receipt(bundles[0].id, {})
        spool.remove(bundles[0], {})
        spool.remove(bundles[1], {"reason": "size"})
        return found

    monkeypatch.setattr(Spool, "finished", end_meanwhile)
    assert fates(spool) == (3, 1, 1, 1, 0)


def test_marks_without_a_bundle_are_not_counted(spool: Spool) -> None:
    for suffix in (QUARANTINED, EVICTED_SHIPPED):
        spool.path(new_ulid(), suffix).write_text("{}")
    assert fates(spool) == (0, 0, 0, 0, 0)
    assert durable_file.TEMPORARY_SUFFIX not in "".join(names(spool))
