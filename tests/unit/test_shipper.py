import json
import os
import re
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from agent.service.stop_signal import StopSignal
from agent.storage.spool import UPLOADING
from shipper.configuration.schema import RetryConfig
from shipper.destinations.directory_destination import DirectoryBucket
from shipper.faults import BundleFault, DestinationFault, HostFault, NetworkFault
from tests.shipper_support import (
    NOON,
    FaultyDestination,
    add_bundle,
    make_shipper,
    new_spool,
    wait_for,
)


@pytest.fixture
def spool(tmp_path):
    return new_spool(tmp_path / "spool")


@pytest.fixture
def root(tmp_path):
    return tmp_path / "bucket"


def corrupt(bundle):
    bundle.archive.write_bytes(b"evidenc3")
    return bundle


def test_everything_pending_goes_newest_first(spool, root):
    young = add_bundle(spool, time_ms=NOON + 2)
    old = add_bundle(spool, time_ms=NOON)
    middle = add_bundle(spool, time_ms=NOON + 1)
    outcomes = []
    summary = make_shipper(spool, DirectoryBucket(root), on_outcome=outcomes.append).ship_pending()
    assert [outcome.bundle_id for outcome in outcomes] == [young.id, middle.id, old.id]
    assert summary.shipped == tuple(outcomes)
    assert summary.complete
    assert spool.counts().delivered == 3


def test_receipt_tells_what_lies_where(spool, root):
    bundle = add_bundle(spool)
    make_shipper(spool, FaultyDestination(root, NetworkFault("lost"))).ship_pending()
    receipt = json.loads(spool.path(bundle.id, ".shipped").read_bytes())
    assert (root / receipt["key"]).read_bytes() == bundle.archive.read_bytes()
    assert (root / receipt["manifest_key"]).read_bytes() == bundle.done.read_bytes()
    assert receipt["sha256"] == bundle.manifest()["archive"]["sha256"]
    assert (receipt["id"], receipt["size"], receipt["attempts"]) == (bundle.id, 8, 2)
    assert receipt["destination"] == "directory under test"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", receipt["shipped_at"])
    assert receipt["shipper_version"]


def test_second_round_has_nothing_to_do(spool, root):
    add_bundle(spool)
    destination = FaultyDestination(root)
    shipper = make_shipper(spool, destination)
    shipper.ship_pending()
    assert shipper.ship_pending().shipped == ()
    assert len(destination.seen) == 1


def test_network_fault_is_tried_again(spool, root):
    bundle = add_bundle(spool)
    destination = FaultyDestination(root, NetworkFault("lost"), NetworkFault("lost"))
    assert make_shipper(spool, destination).ship_pending().complete
    assert destination.seen == [bundle.id] * 3


def test_network_that_stays_away_ends_the_round_and_loses_nothing(spool, root):
    last, middle, first = (add_bundle(spool, time_ms=NOON + i) for i in range(3))
    destination = FaultyDestination(root, *[NetworkFault("lost", "wait")] * 4)
    shipper = make_shipper(spool, destination)
    summary = shipper.ship_pending()
    assert (summary.fault.message, summary.left, summary.complete) == ("lost", 3, False)
    assert destination.seen == [first.id] * 3 + [middle.id], "the second one is tried once"
    assert shipper.ship_pending().complete
    assert spool.counts().delivered == 3
    assert destination.seen[4:] == [first.id, middle.id, last.id]


def test_store_that_refuses_everything_is_asked_twice_a_round(spool, root):
    bundles = [add_bundle(spool, time_ms=NOON + i) for i in range(4)]
    denied = DestinationFault("denied", "allow it")
    destination = FaultyDestination(root, None, denied, denied)
    summary = make_shipper(spool, destination).ship_pending()
    assert destination.seen == [bundles[i].id for i in (3, 2, 1)]
    assert [outcome.bundle_id for outcome in summary.shipped] == [bundles[3].id]
    assert (summary.fault.remedy, summary.left, summary.passed_over) == ("allow it", 3, ())


class Picky(FaultyDestination):
    """Refuses some bundles for ever."""

    refused = ()

    def deliver(self, delivery):
        self.seen.append(delivery.id)
        if delivery.id in self.refused:
            raise DestinationFault("too large", "allow more")
        return self._directory.deliver(delivery)


@pytest.mark.parametrize("refused", [[0], [1], [5], [0, 2, 4]])
def test_bundle_that_the_store_refuses_does_not_hold_the_others_back(spool, root, refused):
    bundles = [add_bundle(spool, time_ms=NOON + i) for i in range(6)]
    destination = Picky(root)
    destination.refused = [bundles[i].id for i in refused]
    summary = make_shipper(spool, destination).ship_pending()
    assert (spool.counts().delivered, summary.left) == (6 - len(refused), len(refused))
    if 0 not in refused:  # the last one leaves nothing to tell whom it concerns
        assert summary.fault is None
        assert [note.bundle for note in summary.notes()] == destination.refused[::-1]
    assert summary.notes()[0].remedy == "allow more"


def test_many_refused_bundles_do_not_hide_the_others_for_ever(spool, root):
    bundles = [add_bundle(spool, time_ms=NOON + i) for i in range(12)]
    destination = Picky(root)
    shipper = make_shipper(spool, destination)
    destination.refused = [bundle.id for bundle in bundles]
    for _ in range(3):
        before = len(destination.seen)
        assert shipper.ship_pending().left == 12
        assert len(destination.seen) == before + 2
    destination.refused = [bundle.id for bundle in bundles if bundle not in bundles[3:6]]
    for _ in range(12):
        summary = shipper.ship_pending()
    assert summary.left == 9
    assert spool.counts().delivered == 3


def test_bad_bundle_does_not_hold_the_others_back(spool, root):
    bad = corrupt(add_bundle(spool, time_ms=NOON))
    good = add_bundle(spool, time_ms=NOON + 1)
    summary = make_shipper(spool, DirectoryBucket(root)).ship_pending()
    assert [outcome.bundle_id for outcome in summary.shipped] == [good.id]
    assert [outcome.bundle_id for outcome in summary.passed_over] == [bad.id]
    assert isinstance(summary.passed_over[0].fault, BundleFault)
    assert (summary.left, summary.complete, summary.fault) == (1, False, None)
    assert bad.archive.exists()
    assert bad.done.exists()


def test_bad_bundle_is_read_again_only_when_it_changes(spool, root):
    bad = corrupt(add_bundle(spool))
    destination = FaultyDestination(root)
    shipper = make_shipper(spool, destination)
    assert [len(shipper.ship_pending().passed_over) for _ in range(3)] == [1, 1, 1]
    assert len(destination.seen) == 1
    bad.archive.write_bytes(b"evidence")
    assert shipper.ship_pending().complete


def test_known_verdict_is_no_further_failure(spool, root):
    corrupt(add_bundle(spool))
    outcomes = []
    shipper = make_shipper(spool, FaultyDestination(root), on_outcome=outcomes.append)
    for _ in range(3):
        shipper.ship_pending()
    assert len(outcomes) == 1


def test_verdict_outlives_the_shipper_and_goes_with_its_mark(spool, root):
    bad = corrupt(add_bundle(spool))
    destination = FaultyDestination(root)
    for _ in range(2):
        (verdict,) = make_shipper(spool, destination).ship_pending().passed_over
        assert "sha256" in verdict.fault.message
    assert len(destination.seen) == 1
    spool.lift_quarantine(bad.id)
    assert len(make_shipper(spool, destination).ship_pending().passed_over) == 1
    assert len(destination.seen) == 2


def test_verdict_that_cannot_be_marked_is_kept_in_memory(spool, root):
    bad = corrupt(add_bundle(spool))
    mark = spool.path(bad.id, ".quarantined")
    mark.mkdir()
    destination = FaultyDestination(root)
    shipper = make_shipper(spool, destination)
    assert [len(shipper.ship_pending().passed_over) for _ in range(2)] == [1, 1]
    assert len(destination.seen) == 1
    mark.rmdir()
    shipper.ship_pending()
    assert mark.is_file()
    assert len(destination.seen) == 1


@pytest.mark.parametrize("mark", ["", "[]", '{"stamp": []}', '{"stamp": [1], "reason": "x"}'])
def test_mark_that_makes_no_sense_is_none(spool, root, mark):
    bundle = add_bundle(spool)
    spool.path(bundle.id, ".quarantined").write_text(mark)
    assert make_shipper(spool, DirectoryBucket(root)).ship_pending().complete
    assert not spool.path(bundle.id, ".quarantined").exists()


def test_bundle_that_the_host_could_not_read_is_tried_again(spool, root):
    add_bundle(spool)
    destination = FaultyDestination(root, HostFault("too many open files"))
    shipper = make_shipper(spool, destination)
    summary = shipper.ship_pending()
    assert (summary.fault.message, summary.left) == ("too many open files", 1)
    assert shipper.ship_pending().complete


def test_evicted_bundle_is_no_fault(spool, root):
    bundle = add_bundle(spool)

    class Evicting(FaultyDestination):
        def deliver(self, delivery):
            spool.remove(bundle, {"id": bundle.id})
            return super().deliver(delivery)

    summary = make_shipper(spool, Evicting(root)).ship_pending()
    assert summary.complete
    assert summary.shipped == ()
    counts = spool.counts()
    assert (counts.made, counts.evicted, counts.delivered) == (1, 1, 0)


@pytest.mark.parametrize("name", ["batches", ""])
def test_vanished_spool_is_an_empty_one(spool, root, name):
    add_bundle(spool)
    (spool.root / name).rename(spool.root.parent / "moved")
    assert make_shipper(spool, DirectoryBucket(root)).ship_pending().complete


def test_spool_that_turns_unreadable_under_way_is_the_hosts_fault(spool, root):
    for number in range(3):
        add_bundle(spool, time_ms=NOON + number)

    class Spoils(FaultyDestination):
        def deliver(self, delivery):
            where = super().deliver(delivery)
            spool.batches.rename(spool.root / "moved")
            spool.batches.write_bytes(b"")
            return where

    summary = make_shipper(spool, Spoils(root)).ship_pending()
    assert isinstance(summary.fault, HostFault)
    assert "Not a directory" in summary.fault.message
    assert (summary.shipped, summary.left) == ((), 3)


def test_receipt_that_cannot_be_written_is_the_hosts_fault(spool, root):
    bundle = add_bundle(spool)
    spool.path(bundle.id, ".shipped").mkdir()
    summary = make_shipper(spool, DirectoryBucket(root)).ship_pending()
    assert isinstance(summary.fault, HostFault)
    assert (summary.left, summary.shipped) == (1, ())
    spool.path(bundle.id, ".shipped").rmdir()
    assert make_shipper(spool, DirectoryBucket(root)).ship_pending().complete


def test_bundle_without_its_receipt_is_not_delivered_again_and_holds_nothing_back(spool, root):
    second, first = (add_bundle(spool, time_ms=NOON + i) for i in range(2))
    spool.path(first.id, ".shipped").mkdir()
    destination = FaultyDestination(root, NetworkFault("lost"))
    shipper = make_shipper(spool, destination)
    for _ in range(2):
        summary = shipper.ship_pending()
        assert isinstance(summary.fault, HostFault)
        assert summary.left == 1
    assert spool.path(second.id, ".shipped").exists()
    spool.path(first.id, ".shipped").rmdir()
    summary = shipper.ship_pending()
    assert summary.complete
    assert [outcome.bundle_id for outcome in summary.shipped] == [first.id]
    assert destination.seen == [first.id, first.id, second.id]
    assert json.loads(spool.path(first.id, ".shipped").read_bytes())["attempts"] == 2


def test_hostile_names_in_the_spool_are_left_alone(spool, root, tmp_path):
    outside = tmp_path / "outside"
    outside.write_bytes(b"secret")
    bundle = add_bundle(spool)
    for suffix in (".tar.zst", ".done"):
        fake = "01ARZ3NDEKTSV4RRFFQ69G5FA"
        spool.batches.joinpath(f"{fake}V{suffix}").symlink_to(outside)
        os.mkfifo(spool.batches / f"{fake}W{suffix}")
        spool.batches.joinpath(f"{fake}X{suffix}").mkdir()
        for name in ("..", "...", "-rf", "a b\n", "x" * 200, "\udcff\udcfe", "01arz" + "0" * 21):
            spool.batches.joinpath(f"{name}{suffix}").write_bytes(b"{}")
    summary = make_shipper(spool, DirectoryBucket(root)).ship_pending()
    assert [outcome.bundle_id for outcome in summary.shipped] == [bundle.id]
    assert summary.complete
    assert outside.read_bytes() == b"secret"


def test_stop_leaves_the_rest_pending(spool, root):
    bundles = [add_bundle(spool, time_ms=NOON + i) for i in range(3)]
    stop = StopSignal()
    shipper = make_shipper(
        spool, DirectoryBucket(root), stop=stop, on_outcome=lambda outcome: stop.set()
    )
    summary = shipper.ship_pending()
    assert [outcome.bundle_id for outcome in summary.shipped] == [bundles[2].id]
    assert summary.left == 2


def test_stop_ends_the_pause_between_attempts_and_the_attempts(spool, root):
    add_bundle(spool)
    stop = StopSignal()
    day = RetryConfig(attempts=1000, initial_wait_sec=86_400, max_wait_sec=86_400)
    destination = FaultyDestination(root, *[NetworkFault("lost")] * 1000)
    shipper = make_shipper(spool, destination, stop=stop, retry=day)
    with ThreadPoolExecutor() as pool:
        summary = pool.submit(shipper.ship_pending)
        wait_for(lambda: destination.seen, "the first attempt")
        stop.set()
        summary = summary.result(timeout=60)
    assert len(destination.seen) == 1
    assert (summary.left, summary.fault.message) == (1, "lost")


class Together(FaultyDestination):
    """From the second bundle on, ``parties`` have to be under way at once."""

    def __init__(self, root, parties):
        super().__init__(root)
        self._barrier = threading.Barrier(parties)

    def deliver(self, delivery):
        self.seen.append(delivery.id)
        if len(self.seen) > 1:
            self._barrier.wait(timeout=60)
        return self._directory.deliver(delivery)


def test_bundles_go_side_by_side_once_the_store_works(spool, root):
    bundles = [add_bundle(spool, time_ms=NOON + number) for number in range(9)]
    summary = make_shipper(spool, Together(root, 4), concurrency=4).ship_pending()
    assert summary.complete
    assert summary.shipped[0].bundle_id == bundles[-1].id, "alone, and the newest"
    assert spool.counts().delivered == 9


def test_outage_costs_the_attempts_of_two_bundles_however_many_may_go_at_once(spool, root):
    for number in range(20):
        add_bundle(spool, time_ms=NOON + number)
    destination = FaultyDestination(root, *[NetworkFault("lost")] * 100)
    summary = make_shipper(spool, destination, concurrency=8).ship_pending()
    assert (summary.left, summary.blocked, len(destination.seen)) == (20, True, 4)


def test_store_that_dies_under_many_deliveries_pauses_all_and_counts_them_right(spool, root):
    bundles = [add_bundle(spool, time_ms=NOON + number) for number in range(20)]

    class Dies(Together):
        alive = True

        def deliver(self, delivery):
            self.seen.append(delivery.id)
            if not self.alive or len(self.seen) > 5:
                self.alive = False
                raise NetworkFault("connection refused")
            return self._directory.deliver(delivery)

    destination = Dies(root, 4)
    summary = make_shipper(spool, destination, concurrency=4).ship_pending()
    assert summary.blocked
    assert summary.left == 20 - len(summary.shipped)
    assert len(summary.shipped) == spool.counts().delivered == 5
    assert set(destination.seen) < {bundle.id for bundle in bundles}, "not all were tried"


def test_note_of_an_upload_is_abandoned_once_its_bundle_is_gone(spool, root):
    bundle = add_bundle(spool)
    note = spool.path(bundle.id, UPLOADING)
    note.write_bytes(b"{}")

    class Abandons(FaultyDestination):
        abandoned = ()

        def abandon(self, note):
            self.abandoned += (note,)
            if len(self.abandoned) == 1:
                raise NetworkFault("lost")

    destination = Abandons(root, *[NetworkFault("lost")] * 3)
    shipper = make_shipper(spool, destination)
    shipper.ship_pending()
    assert destination.abandoned == (), "the bundle is still there"
    spool.remove(bundle, {"id": bundle.id})
    shipper.ship_pending()
    assert note.exists(), "what failed is tried again"
    shipper.ship_pending()
    assert destination.abandoned == (note, note)
    assert not note.exists()


def test_upload_of_a_bundle_that_is_put_off_is_not_abandoned_nor_any_in_an_outage(spool, root):
    put_off, gone, _ = (add_bundle(spool, time_ms=NOON + number) for number in (2, 1, 0))

    class Abandons(FaultyDestination):
        abandoned = ()

        def abandon(self, note):
            self.abandoned += (note,)

    for bundle in (put_off, gone):
        spool.path(bundle.id, UPLOADING).write_bytes(b"{}")
    spool.remove(gone, {"id": gone.id})
    too_large = DestinationFault("too large")
    destination = Abandons(root, too_large, too_large, too_large)
    shipper = make_shipper(spool, destination)
    assert shipper.ship_pending().blocked
    assert destination.abandoned == ()
    assert [note.bundle for note in shipper.ship_pending().notes()] == [put_off.id]
    assert destination.abandoned == (spool.path(gone.id, UPLOADING),)
