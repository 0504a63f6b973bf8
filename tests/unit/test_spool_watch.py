import resource
import threading
from pathlib import Path

import pytest

from agent.service.stop_signal import StopSignal
from agent.storage.durable_file import publish_bytes
from agent.storage.spool import Spool
from shipper.spools.spool_watch import Place, SpoolWatch, Wake
from shipper.spools.state_directory import RETRY_FILE
from tests.shipper_support import add_bundle, new_spool

HOURS = 10_000.0


@pytest.fixture
def spool(tmp_path):
    return new_spool(tmp_path / "spool")


@pytest.fixture
def stop():
    return StopSignal()


@pytest.fixture
def watch(spool, stop):
    watch = SpoolWatch(stop.fd)
    yield watch
    watch.close()


@pytest.fixture
def arm(spool, watch):
    return lambda *others: watch.arm([Place(spool.batches), *others])


def soon(action):
    thread = threading.Thread(target=action)
    thread.start()
    return thread


def test_finished_bundle_wakes(spool, watch, arm):
    assert arm()
    thread = soon(lambda: add_bundle(spool))
    assert watch.wait(HOURS) is Wake.NEWS
    thread.join()


def test_bundle_between_arming_and_waiting_is_not_lost(spool, watch, arm):
    arm()
    add_bundle(spool)
    assert watch.wait(HOURS) is Wake.NEWS


def test_receipts_and_temporaries_do_not_wake(spool, watch, arm):
    bundle = add_bundle(spool)
    arm()
    spool.write_receipt(bundle.id, {})
    (spool.batches / f"{bundle.id}.part").write_bytes(b"")
    assert watch.wait(0.05) is Wake.TIME


def test_rearming_does_not_forget(spool, watch, arm):
    arm()
    add_bundle(spool)
    arm()
    assert watch.wait(HOURS) is Wake.NEWS


def test_stop_wakes(watch, stop, arm):
    arm()
    thread = soon(stop.set)
    assert watch.wait(HOURS) is Wake.STOP
    thread.join()


@pytest.mark.parametrize("removed", [True, False])
def test_vanished_directory_wakes_and_the_new_one_is_watched(spool, watch, arm, removed):
    arm()
    if removed:
        spool.batches.rmdir()
    else:
        spool.batches.rename(spool.root / "old")
    assert watch.wait(HOURS) is Wake.NEWS
    assert not arm()
    assert watch.wait(0.02) is Wake.TIME, "a missing directory must not spin"
    spool.prepare()
    assert arm()
    add_bundle(spool)
    assert watch.wait(HOURS) is Wake.NEWS


def test_exchanged_directory_is_noticed_at_the_next_arming(spool, watch, arm):
    arm()
    spool.root.rename(spool.root.parent / "old")
    spool.prepare()
    arm()
    add_bundle(Spool(spool.root.parent / "old"))
    assert watch.wait(0.02) is Wake.TIME
    add_bundle(spool)
    assert watch.wait(HOURS) is Wake.NEWS


def test_without_inotify_the_clock_is_left(spool, stop):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        watch = SpoolWatch(stop.fd)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert not watch.arm([Place(spool.batches)])
    assert not watch.take_news()
    add_bundle(spool)
    assert watch.wait(0.02) is Wake.TIME
    stop.set()
    assert watch.wait(HOURS) is Wake.STOP
    watch.close()


def test_any_of_many_directories_wakes_and_dropped_ones_do_not(spool, watch, arm, tmp_path):
    other = new_spool(tmp_path / "other")
    assert arm(Place(other.batches))
    add_bundle(other)
    assert watch.wait(HOURS) is Wake.NEWS
    arm()
    watch.take_news()
    add_bundle(other)
    assert watch.wait(0.02) is Wake.TIME
    add_bundle(spool)
    assert watch.wait(HOURS) is Wake.NEWS


def test_new_inbox_wakes_and_hidden_files_do_not(watch, arm, tmp_path):
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    arm(Place(inbox, subdirectories=True))
    (inbox / ".shipper-state.json").write_bytes(b"{}")
    assert watch.wait(0.02) is Wake.TIME
    (inbox / "web-17").mkdir()
    assert watch.wait(HOURS) is Wake.NEWS


def test_news_do_not_end_a_pause_and_are_not_forgotten(spool, watch, arm):
    arm()
    add_bundle(spool)
    assert watch.wait(0.02, heed_news=False) is Wake.TIME
    assert watch.wait(HOURS) is Wake.NEWS
    assert watch.wait(0.02) is Wake.TIME, "told once"


def test_somebody_who_wants_a_retry_ends_a_pause(spool, watch, arm):
    arm()
    publish_bytes(spool.batches / RETRY_FILE, b"")
    assert watch.wait(HOURS, heed_news=False) is Wake.RETRY
    assert watch.wait(0.02, heed_news=False) is Wake.TIME


def test_news_are_taken_without_waiting(spool, watch, arm):
    arm()
    assert not watch.take_news()
    add_bundle(spool)
    assert watch.take_news()
    assert not watch.take_news()


def watched(watch):
    """How many directories the kernel watches for it."""
    return Path(f"/proc/self/fdinfo/{watch._inotify}").read_text().count("inotify wd:")


def test_directory_that_is_no_place_any_more_is_watched_no_more(spool, watch, arm):
    arm(Place(spool.root, subdirectories=True))
    assert watched(watch) == 2
    arm()
    assert watched(watch) == 1


def test_more_events_than_the_kernel_keeps_wake(spool, watch, arm):
    """What was lost may have been a marker."""
    arm()
    kept = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    hidden = [spool.batches / ".a", spool.batches / ".b"]
    hidden[0].touch()
    for number in range(kept + 1):
        hidden[number % 2].rename(hidden[1 - number % 2])
    assert watch.take_news()
