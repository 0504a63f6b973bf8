"""A part of the crash matrix; and that it finds what it is there to find."""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from agent.collection.collection_tally import CollectionTally
from agent.storage import durable_file
from agent.storage.durable_file import TEMPORARY_SUFFIX
from agent.storage.spool import ARCHIVE, DONE, Manifest, Spool, SpooledBundle
from shipper.destinations.delivery import Delivery
from shipper.destinations.directory_destination import DirectoryBucket
from shipper.destinations.object_key import ObjectKeys
from tests.cargo import GOOD
from tests.crash_matrix import __main__
from tests.crash_matrix.agent_victim import AGENT, FIRST, FIRST_START
from tests.crash_matrix.disk import Disk, load_image
from tests.crash_matrix.matrix import KILL, Outcome, Point, make_seed, plan, try_point, try_points
from tests.crash_matrix.operations import operations
from tests.crash_matrix.power_loss import Loss, lose_power, lose_power_after_errors
from tests.crash_matrix.ship_victim import SHIP
from tests.crash_matrix.tracing import read_calls, run_traced
from tests.crash_matrix.victim import Victim
from tests.crash_matrix.victims import VICTIMS
from tests.requirements import skip_or_fail

# Coprime to the number of faults of a call, so that each kind gets its turn.
EVERY = 13
# A run for each, and after its error hundreds of losses of power.
EVERY_ERROR = 29


@pytest.fixture(scope="module", autouse=True)
def _strace() -> None:
    if shutil.which("strace") is None:
        skip_or_fail("strace is not installed")


def broken(results: Iterable[Outcome | Loss]) -> list[str]:
    """What does not hold, at all."""
    return [text for result in results for text in result.broken]


@pytest.mark.parametrize("victim", VICTIMS, ids=lambda victim: victim.name)
def test_a_part_of_the_matrix_is_survived(victim: Victim) -> None:
    outcomes = list(try_points(victim, EVERY))
    assert broken(outcomes) == []
    assert len(outcomes) > 10
    assert {"SIGKILL", "EIO", "ENOSPC", "EDQUOT"} == {outcome.fault for outcome in outcomes}


@pytest.mark.parametrize("victim", VICTIMS, ids=lambda victim: victim.name)
def test_a_loss_of_power_is_survived_at_any_moment(victim: Victim) -> None:
    losses = list(lose_power(victim))
    assert broken(losses) == []
    assert sum(not loss.known for loss in losses) > 50


@pytest.mark.parametrize("victim", [AGENT, SHIP], ids=lambda victim: victim.name)
def test_a_loss_of_power_after_an_error_is_survived(victim: Victim) -> None:
    losses = list(lose_power_after_errors(victim, EVERY_ERROR))
    assert broken(losses) == []
    assert len({loss.error for loss in losses}) > 3


def points_of(victim: Victim, seed: Path, kind: str, name: str) -> Iterator[Point]:
    for point in plan(victim, seed):
        if point.operation.kind == kind and point.operation.names[-1].endswith(name):
            yield point


def test_a_marker_before_its_archive_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def publish(spool: Spool, bundle_id: str, archive: Path, manifest: Manifest) -> SpooledBundle:
        final, done = spool.path(bundle_id, ARCHIVE), spool.path(bundle_id, DONE)
        size = archive.stat().st_size
        durable_file.publish_bytes(done, b"{}")
        durable_file.publish_file(archive, final)
        return SpooledBundle(bundle_id, spool.batches, size, shipped=False)

    monkeypatch.setattr(Spool, "publish", publish)
    seed = make_seed(FIRST_START, tmp_path)
    points = points_of(FIRST_START, seed, "rename", f"{FIRST}{ARCHIVE}")
    outcomes = [try_point(FIRST_START, seed, point) for point in points if point.fault == KILL]
    assert f"marker without archive: {FIRST}" in broken(outcomes)
    assert f"marker without archive: {FIRST}" in broken(lose_power(FIRST_START))


def test_a_file_that_is_not_synced_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def publish_file(temporary: Path, final: Path) -> None:
        temporary.rename(final)
        durable_file.sync_directory(final.parent)

    monkeypatch.setattr(durable_file, "publish_file", publish_file)
    assert any(text.startswith("half a bundle") for text in broken(lose_power(AGENT)))


def test_a_directory_that_is_not_synced_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durable_file, "sync_directory", lambda path: None)
    assert f"{FIRST} is absent, not pending" in broken(lose_power(AGENT))


def test_a_store_that_is_not_synced_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def make_directory(path: Path, mode: int = 0o777) -> None:
        path.mkdir(mode, exist_ok=True)

    monkeypatch.setattr(durable_file, "make_directory", make_directory)
    found = broken(lose_power(SHIP))
    assert any(text.startswith("not in the store: ") for text in found)


def test_a_manifest_before_its_archive_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def deliver(store: DirectoryBucket, delivery: Delivery) -> None:
        put(store, replace(delivery, keys=ObjectKeys(delivery.keys.manifest, "late")))
        put(store, delivery)

    put = DirectoryBucket.deliver
    monkeypatch.setattr(DirectoryBucket, "deliver", deliver)
    assert f"a manifest before its archive: {GOOD[0]}" in broken(lose_power(SHIP))


def test_the_command_says_what_broke(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(durable_file, "sync_directory", lambda path: None)
    monkeypatch.setattr(__main__, "OUT", tmp_path / "figures.json")
    assert __main__.main(["first_start", "--every", "50"]) == 1
    assert "BROKEN" in capsys.readouterr().out
    figures = json.loads((tmp_path / "figures.json").read_text())["victims"]["first_start"]
    assert figures["points"] == figures["survived"] > 0
    assert figures["power_losses"] > figures["power_losses_survived"]
    assert figures["broken"]


def test_leftovers_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Spool, "_own_temporaries", lambda spool: [])
    found = broken(lose_power(FIRST_START))
    assert any(text.startswith(f"left in batches: .{FIRST}{ARCHIVE}") for text in found)


def test_an_error_that_ends_the_process_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CollectionTally, "failed", lambda *_: os._exit(3))
    assert "an error ended the process: wait status 768" in broken(failed_syncs(tmp_path))


def test_an_error_that_is_taken_for_another_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def publish_file(temporary: Path, final: Path) -> None:
        try:
            publish(temporary, final)
        except OSError as error:
            raise OSError(errno.EACCES, "Permission denied") from error

    publish = durable_file.publish_file
    monkeypatch.setattr(durable_file, "publish_file", publish_file)
    assert any(text.startswith("the reason is not told") for text in broken(failed_syncs(tmp_path)))


def failed_syncs(directory: Path) -> list[Outcome]:
    """The archive's fsync fails."""
    seed = make_seed(FIRST_START, directory)
    points = points_of(FIRST_START, seed, "fsync", TEMPORARY_SUFFIX)
    return [try_point(FIRST_START, seed, point) for point in points if point.fault == "ENOSPC"]


def test_a_victim_that_works_with_no_fault_only_is_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Spool, "publish", refuse)
    with pytest.raises(RuntimeError, match="does not work even without a fault"):
        plan(FIRST_START, make_seed(FIRST_START, tmp_path))


def refuse(*_: object) -> SpooledBundle:
    raise OSError(errno.EROFS, "Read-only file system")


def test_a_kill_comes_before_the_call_it_is_aimed_at(tmp_path: Path) -> None:
    old, new, log = tmp_path / "old", tmp_path / "new", tmp_path / "log"
    old.touch()
    injection = "rename,renameat,renameat2:error=EIO:signal=SIGKILL:when=1"
    status = run_traced(lambda: os.rename(old, new), log, injection)  # noqa: PTH104
    assert os.WIFSIGNALED(status)
    assert old.exists()
    assert not new.exists()
    assert [call.hit for call in read_calls(log)] == [True]


def test_the_model_of_a_disk_follows_every_call(tmp_path: Path) -> None:
    root, log = tmp_path / "root", tmp_path / "log"
    root.mkdir()
    (root / "old").write_bytes(b"0123456789")
    disk = Disk(root)
    assert run_traced(lambda: use_files(root), log, limit=1 << 16) == 0
    done = operations(read_calls(log), root)
    for operation in done:
        disk.apply(operation)
    assert dict(disk.images(0))["nothing"] == load_image(root)
    assert {operation.kind for operation in done} >= {"create", "write", "truncate", "link"}


def use_files(root: Path) -> None:
    directory = root / "a b \u00e9"
    directory.mkdir()
    (directory / "x").write_bytes(b'quote " backslash \\ end) = 3\n\0' * 700)
    with (root / "old").open("r+b") as file:
        file.write(b"ab")
        os.pwrite(file.fileno(), b"XY", 12)
    with tempfile.TemporaryFile(dir=root) as file:
        file.write(b"no name")
    gone = (root / "gone").open("wb", buffering=0)
    (root / "gone").unlink()
    gone.write(b"unnamed by now")
    os.truncate(directory / "x", 5_000)
    (directory / "x").rename(root / "moved")
    (root / "second name").hardlink_to(root / "moved")
    (directory / "y").touch()
    shutil.rmtree(directory)


def test_what_is_not_synced_can_be_lost(tmp_path: Path) -> None:
    root, log = tmp_path / "root", tmp_path / "log"
    root.mkdir()
    disk = Disk(root)
    assert run_traced(lambda: write_without_sync(root), log, limit=1 << 16) == 0
    for operation in operations(read_calls(log), root):
        disk.apply(operation)
    images = dict(disk.images(0))
    del images["a part"]
    everything = {"kept": None, "kept/durable": b"one", "kept/data lost": b"two"}
    assert images == {
        "nothing": everything,
        "data": {**everything, "kept/data lost": b""},
        "data, sizes kept": {**everything, "kept/data lost": bytes(3)},
        "names": {"kept": None, "kept/durable": b"one"},
        "names and data": {"kept": None, "kept/durable": b"one"},
    }


def write_without_sync(root: Path) -> None:
    kept = root / "kept"
    kept.mkdir()
    durable_file.sync_directory(root)
    durable_file.publish_bytes(kept / "durable", b"one")
    (kept / "data lost").write_bytes(b"two")
