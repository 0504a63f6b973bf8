import json
import os
import re

import pytest

from agent.service.stop_signal import StopSignal
from shipper.config_schema import RetryConfig
from shipper.directory_destination import DirectoryBucket
from shipper.faults import BundleFault, DestinationFault, HostFault, NetworkFault
from shipper.shipper_state import STATE_FILE, StateFile
from tests.shipper_support import NOON, add_bundle, make_shipper, new_spool


class FaultyDestination:
    """Raises the given faults, one at each delivery, before it hands on to a directory."""

    description = "directory under test"

    def __init__(self, root, *faults):
        self._directory = DirectoryBucket(root)
        self._faults = list(faults)
        self.seen = []

    def deliver(self, delivery):
        self.seen.append(delivery.id)
        fault = self._faults.pop(0) if self._faults else None
        if fault is not None:
            raise fault
        self._directory.deliver(delivery)


@pytest.fixture
def spool(tmp_path):
    return new_spool(tmp_path / "spool")


@pytest.fixture
def root(tmp_path):
    return tmp_path / "bucket"


def corrupt(bundle):
    bundle.archive.write_bytes(b"evidenc3")
    return bundle


def test_everything_pending_goes_oldest_first(spool, root):
    young = add_bundle(spool, time_ms=NOON + 2)
    old = add_bundle(spool, time_ms=NOON)
    middle = add_bundle(spool, time_ms=NOON + 1)
    outcomes = []
    summary = make_shipper(spool, DirectoryBucket(root), on_outcome=outcomes.append).ship_pending()
    assert [outcome.bundle_id for outcome in outcomes] == [old.id, middle.id, young.id]
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
    first, second = add_bundle(spool, time_ms=NOON), add_bundle(spool, time_ms=NOON + 1)
    destination = FaultyDestination(root, *[NetworkFault("lost", "wait")] * 3)
    shipper = make_shipper(spool, destination)
    summary = shipper.ship_pending()
    assert (summary.fault.message, summary.left, summary.complete) == ("lost", 2, False)
    assert destination.seen == [first.id] * 3
    assert shipper.ship_pending().complete
    assert spool.counts().delivered == 2
    assert destination.seen[3:] == [first.id, second.id]


def test_destination_fault_is_not_tried_again_and_ends_the_round(spool, root):
    bundles = [add_bundle(spool, time_ms=NOON + i) for i in range(3)]
    destination = FaultyDestination(root, None, DestinationFault("denied", "allow it"))
    summary = make_shipper(spool, destination).ship_pending()
    assert destination.seen == [bundle.id for bundle in bundles[:2]]
    assert [outcome.bundle_id for outcome in summary.shipped] == [bundles[0].id]
    assert (summary.fault.remedy, summary.left) == ("allow it", 2)


def test_bad_bundle_does_not_hold_the_others_back(spool, root):
    bad = corrupt(add_bundle(spool, time_ms=NOON))
    good = add_bundle(spool, time_ms=NOON + 1)
    summary = make_shipper(spool, DirectoryBucket(root)).ship_pending()
    assert [outcome.bundle_id for outcome in summary.shipped] == [good.id]
    assert [outcome.bundle_id for outcome in summary.bad] == [bad.id]
    assert isinstance(summary.bad[0].fault, BundleFault)
    assert (summary.left, summary.complete, summary.fault) == (1, False, None)
    assert bad.archive.exists()
    assert bad.done.exists()


def test_bad_bundle_is_read_again_only_when_it_changes(spool, root):
    bad = corrupt(add_bundle(spool))
    destination = FaultyDestination(root)
    shipper = make_shipper(spool, destination)
    assert [len(shipper.ship_pending().bad) for _ in range(3)] == [1, 1, 1]
    assert len(destination.seen) == 1
    bad.archive.write_bytes(b"evidence")
    assert shipper.ship_pending().complete


def test_evicted_bundle_is_no_fault(spool, root):
    bundle = add_bundle(spool)

    class Evicting(FaultyDestination):
        def deliver(self, delivery):
            spool.remove(bundle, {"id": bundle.id})
            super().deliver(delivery)

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


def test_receipt_that_cannot_be_written_is_the_hosts_fault(spool, root):
    bundle = add_bundle(spool)
    spool.path(bundle.id, ".shipped").mkdir()
    summary = make_shipper(spool, DirectoryBucket(root)).ship_pending()
    assert isinstance(summary.fault, HostFault)
    assert (summary.left, summary.shipped) == (1, ())
    spool.path(bundle.id, ".shipped").rmdir()
    assert make_shipper(spool, DirectoryBucket(root)).ship_pending().complete


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
    assert [outcome.bundle_id for outcome in summary.shipped] == [bundles[0].id]
    assert summary.left == 2


def test_stop_ends_the_pause_between_attempts(spool, root):
    add_bundle(spool)
    stop = StopSignal()

    class StopsOnFirst(FaultyDestination):
        def deliver(self, delivery):
            stop.set()
            super().deliver(delivery)

    day = RetryConfig(attempts=1000, initial_wait_sec=86_400, max_wait_sec=86_400)
    destination = StopsOnFirst(root, *[NetworkFault("lost")] * 1000)
    summary = make_shipper(spool, destination, stop=stop, retry=day).ship_pending()
    assert len(destination.seen) == 1
    assert (summary.left, summary.fault.message) == (1, "lost")


def test_fault_is_noted_while_it_lasts(spool, root):
    add_bundle(spool)
    destination = FaultyDestination(root, *[DestinationFault("denied", "allow it")] * 2)
    shipper, state = make_shipper(spool, destination), StateFile(spool.batches)
    shipper.ship_pending()
    (note,) = state.read()
    assert (note.kind, note.message, note.remedy) == ("destination", "denied", "allow it")
    written = (spool.batches / STATE_FILE).stat().st_ino
    shipper.ship_pending()
    assert (spool.batches / STATE_FILE).stat().st_ino == written
    shipper.ship_pending()
    assert state.read() == []


@pytest.mark.parametrize("content", [b"", b"[]", b'{"faults": [1]}', b'{"faults": [{}]}', b"\xff"])
def test_spoiled_note_is_replaced(spool, root, content):
    (spool.batches / STATE_FILE).write_bytes(content)
    corrupt(add_bundle(spool))
    make_shipper(spool, DirectoryBucket(root)).ship_pending()
    assert [note.kind for note in StateFile(spool.batches).read()] == ["bundle"]


def test_note_that_cannot_be_written_stops_nothing(spool, root):
    (spool.batches / STATE_FILE).mkdir()
    add_bundle(spool, time_ms=NOON)
    corrupt(add_bundle(spool, time_ms=NOON + 1))
    summary = make_shipper(spool, DirectoryBucket(root)).ship_pending()
    assert (len(summary.shipped), len(summary.bad)) == (1, 1)
