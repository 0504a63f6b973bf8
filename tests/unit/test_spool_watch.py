import resource
import threading

import pytest

from agent.service.stop_signal import StopSignal
from agent.storage.spool import Spool
from shipper.spool_watch import SpoolWatch
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
    watch = SpoolWatch(spool.batches, stop.fd)
    yield watch
    watch.close()


def soon(action):
    thread = threading.Thread(target=action)
    thread.start()
    return thread


def test_finished_bundle_wakes(spool, watch):
    assert watch.arm()
    thread = soon(lambda: add_bundle(spool))
    assert watch.wait(HOURS)
    thread.join()


def test_bundle_between_arming_and_waiting_is_not_lost(spool, watch):
    watch.arm()
    add_bundle(spool)
    assert watch.wait(HOURS)


def test_receipts_and_temporaries_do_not_wake(spool, watch):
    bundle = add_bundle(spool)
    watch.arm()
    spool.write_receipt(bundle.id, {})
    (spool.batches / f"{bundle.id}.part").write_bytes(b"")
    assert not watch.wait(0.05)


def test_rearming_does_not_forget(spool, watch):
    watch.arm()
    add_bundle(spool)
    watch.arm()
    assert watch.wait(HOURS)


def test_stop_wakes(watch, stop):
    watch.arm()
    thread = soon(stop.set)
    assert not watch.wait(HOURS)
    thread.join()


@pytest.mark.parametrize("removed", [True, False])
def test_vanished_directory_wakes_and_the_new_one_is_watched(spool, watch, removed):
    watch.arm()
    if removed:
        spool.batches.rmdir()
    else:
        spool.batches.rename(spool.root / "old")
    assert watch.wait(HOURS)
    assert not watch.arm()
    assert not watch.wait(0.02), "a missing directory must not spin"
    spool.prepare()
    assert watch.arm()
    add_bundle(spool)
    assert watch.wait(HOURS)


def test_exchanged_directory_is_noticed_at_the_next_arming(spool, watch):
    watch.arm()
    spool.root.rename(spool.root.parent / "old")
    spool.prepare()
    watch.arm()
    add_bundle(Spool(spool.root.parent / "old"))
    assert not watch.wait(0.02)
    add_bundle(spool)
    assert watch.wait(HOURS)


def test_without_inotify_the_clock_is_left(spool, stop):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        watch = SpoolWatch(spool.batches, stop.fd)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert not watch.arm()
    add_bundle(spool)
    assert not watch.wait(0.02)
    stop.set()
    assert not watch.wait(HOURS)
    watch.close()
