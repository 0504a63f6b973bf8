"""Tombstones in the store, each where its bundle would lie; marks on bundles that are bad."""

import json
import os
from pathlib import Path

import pytest

from agent.configuration.schema import CleanupConfig
from agent.service.audit import Audit
from agent.service.stop_signal import StopSignal
from agent.storage import durable_file
from agent.storage.space_watcher import SpaceWatcher
from agent.storage.spool import DONE, EVICTED, EVICTED_SHIPPED, SHIPPED, as_bytes
from agent.storage.tombstone import make_tombstone, read_tombstone
from agent.storage.ulid import new_ulid
from shipper.destinations.directory_destination import DirectoryBucket
from shipper.faults import BundleFault, DestinationFault, HostFault, NetworkFault
from tests.shipper_support import (
    NOON,
    FaultyDestination,
    add_bundle,
    delivery_of,
    make_shipper,
    new_spool,
)


@pytest.fixture
def spool(tmp_path):
    return new_spool(tmp_path / "spool")


@pytest.fixture
def root(tmp_path):
    return tmp_path / "bucket"


def evict(spool, bundle):
    """As the agent does it; the key that its manifest would have had, for a tombstone."""
    manifest_key = delivery_of(bundle).keys.manifest
    tombstone = make_tombstone(bundle, bundle.manifest(), "2026-01-02T03:04:05+00:00")
    spool.remove(bundle, tombstone)
    return manifest_key.removesuffix(".json") + ".evicted.json"


def files(root):
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def test_tombstone_lies_where_the_manifest_would(spool, root):
    bundle = add_bundle(spool, time_ms=NOON, incident={"id": "the-incident"})
    key = evict(spool, bundle)
    outcomes = []
    summary = make_shipper(spool, DirectoryBucket(root), on_outcome=outcomes.append).ship_pending()
    assert summary.complete
    assert (summary.shipped, summary.left) == ((), 0)
    assert [outcome.key for outcome in summary.tombstones] == [key]
    assert [outcome.title for outcome in outcomes] == [f"the tombstone of {bundle.id}"]
    assert files(root) == [key]
    document = json.loads((root / key).read_bytes())
    assert document == {
        "schema": 1,
        "id": bundle.id,
        "host": "filer-1",
        "anomaly": "slow_reads",
        "incident": "the-incident",
        "reason": "size",
        "size": 8,
        "sha256": document["sha256"],
        "quarantined": False,
        "evicted_at": "2026-01-02T03:04:05+00:00",
    }
    note = json.loads(spool.path(bundle.id, EVICTED_SHIPPED).read_bytes())
    assert (note["id"], note["key"]) == (bundle.id, key)
    assert spool.undelivered_tombstones() == []
    assert (spool.counts().evicted, spool.counts().delivered) == (1, 0)


def test_tombstone_goes_once(spool, root):
    evict(spool, add_bundle(spool))
    destination = FaultyDestination(root)
    shipper = make_shipper(spool, destination)
    for _ in range(2):
        assert shipper.ship_pending().complete
    assert make_shipper(spool, destination).ship_pending().tombstones == ()
    assert len(destination.seen) == 1


def test_bundles_go_first(spool, root):
    key = evict(spool, add_bundle(spool, time_ms=NOON))
    bundle = add_bundle(spool, time_ms=NOON + 1)
    destination = FaultyDestination(root)
    summary = make_shipper(spool, destination).ship_pending()
    assert destination.seen == [bundle.id, key]
    assert (len(summary.shipped), len(summary.tombstones)) == (1, 1)


@pytest.mark.parametrize("fault", [NetworkFault("lost"), DestinationFault("denied", "allow it")])
def test_store_that_is_away_gets_the_tombstone_later(spool, root, fault):
    evict(spool, add_bundle(spool))
    destination = FaultyDestination(root, *[fault] * 3)
    shipper = make_shipper(spool, destination)
    summary = shipper.ship_pending()
    while summary.fault is not None:
        assert (summary.tombstones, summary.tombstones_left, summary.left) == ((), 1, 0)
        assert not summary.complete
        assert spool.undelivered_tombstones()
        summary = shipper.ship_pending()
    assert summary.complete
    assert len(destination.seen) == 4


def test_fault_of_all_is_met_twice_whether_by_bundles_or_tombstones(spool, root):
    bundle = add_bundle(spool)
    for number in range(3):
        evict(spool, add_bundle(spool, time_ms=NOON + number))
    destination = FaultyDestination(root, *[DestinationFault("denied")] * 2)
    summary = make_shipper(spool, destination).ship_pending()
    assert len(destination.seen) == 2
    assert destination.seen[0] == bundle.id
    assert (summary.left, summary.tombstones_left, summary.fault.message) == (1, 3, "denied")


def test_refused_tombstone_holds_no_other_back(spool, root):
    keys = [evict(spool, add_bundle(spool, time_ms=NOON + number)) for number in range(3)]
    destination = FaultyDestination(root, DestinationFault("denied"))
    summary = make_shipper(spool, destination).ship_pending()
    assert [outcome.key for outcome in summary.tombstones] == keys[1::-1]
    assert summary.tombstones_left == 1
    assert [note.bundle for note in summary.notes()] == [keys[2].rpartition("/")[2][:26]]


def test_marker_that_became_the_tombstone_on_a_full_disk_is_told_too(spool, root, monkeypatch):
    """A fault of ours: else cleaning would need space in order to make space."""
    bundle = add_bundle(spool, time_ms=NOON, incident={"id": "the-incident"})
    key = delivery_of(bundle).keys.manifest.removesuffix(".json") + ".evicted.json"

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(durable_file, "publish_bytes", full)
        spool.remove(bundle, {"reason": "size"})
    assert make_shipper(spool, DirectoryBucket(root)).ship_pending().complete
    document = json.loads((root / key).read_bytes())
    assert (document["reason"], document["size"], document["evicted_at"]) == ("size", 8, None)
    assert (document["host"], document["incident"]) == ("filer-1", "the-incident")


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000),
        b'{"host": 1, "sha256": [], "size": "9"}',
        b'{"archive": 7, "incident": [1]}',
        b'{"archive": {"size": true}, "sha256": "../../x"}',
    ],
)
def test_tombstone_that_makes_no_sense_is_told_as_far_as_it_goes(spool, root, content):
    bundle_id = new_ulid(NOON)
    spool.path(bundle_id, EVICTED).write_bytes(content)
    assert make_shipper(spool, DirectoryBucket(root)).ship_pending().complete
    key = f"unknown/2026/01/01/{bundle_id}-unknown.evicted.json"
    assert files(root) == [key]
    document = json.loads((root / key).read_bytes())
    assert (document["id"], document["host"], document["size"]) == (bundle_id, None, None)


def test_hostile_words_in_a_tombstone_lead_nowhere_else(spool, root):
    bundle_id = new_ulid(NOON)
    hostile = {"host": "../../etc", "anomaly": "/x\n", "sha256": "../../../../z"}
    spool.path(bundle_id, EVICTED).write_text(json.dumps(hostile))
    assert make_shipper(spool, DirectoryBucket(root)).ship_pending().complete
    assert files(root) == [f"etc/2026/01/01/{bundle_id}-x.evicted.json"]


def test_tombstone_of_no_time_in_the_calendar_holds_nothing_back(spool, root):
    spool.path("7" + "Z" * 25, EVICTED).write_text("{}")
    evict(spool, add_bundle(spool))
    summary = make_shipper(spool, DirectoryBucket(root)).ship_pending()
    assert (len(summary.tombstones), summary.tombstones_left) == (1, 1)
    assert isinstance(summary.passed_over[0].fault, BundleFault)


def test_links_pipes_and_directories_called_like_tombstones_are_none(spool, root, tmp_path):
    (tmp_path / "secret").write_text('{"host": "secret"}')
    spool.path(new_ulid(), EVICTED).symlink_to(tmp_path / "secret")
    spool.path(new_ulid(), EVICTED).mkdir()
    os.mkfifo(spool.path(new_ulid(), EVICTED))
    summary = make_shipper(spool, DirectoryBucket(root)).ship_pending()
    assert summary.complete
    assert not root.exists()


def test_bundle_that_arrived_all_the_same_is_not_told_as_lost(spool, root):
    """Evicted while it was on its way: the store has it whole."""
    bundle = add_bundle(spool)

    class Evicting(FaultyDestination):
        def deliver(self, delivery):
            where = super().deliver(delivery)
            evict(spool, bundle)
            return where

    shipper = make_shipper(spool, Evicting(root))
    for _ in range(2):
        assert shipper.ship_pending().tombstones == ()
    assert spool.path(bundle.id, SHIPPED).exists()
    assert not [name for name in files(root) if "evicted" in name]


def test_half_evicted_bundle_is_still_delivered_whole(spool, root):
    bundle = add_bundle(spool)
    spool.path(bundle.id, EVICTED).write_text("{}")
    summary = make_shipper(spool, DirectoryBucket(root)).ship_pending()
    assert ([one.bundle_id for one in summary.shipped], summary.tombstones) == ([bundle.id], ())
    assert (spool.counts().delivered, spool.counts().made) == (1, 1)


def test_note_that_cannot_be_written_is_the_hosts_fault_and_costs_no_second_delivery(spool, root):
    evict(spool, bundle := add_bundle(spool))
    spool.path(bundle.id, EVICTED_SHIPPED).mkdir()
    destination = FaultyDestination(root)
    shipper = make_shipper(spool, destination)
    for _ in range(2):
        summary = shipper.ship_pending()
        assert isinstance(summary.fault, HostFault)
        assert summary.tombstones_left == 1
    spool.path(bundle.id, EVICTED_SHIPPED).rmdir()
    assert shipper.ship_pending().complete
    assert len(destination.seen) == 1


def test_second_delivery_writes_the_same_bytes_to_the_same_key(spool, root):
    key = evict(spool, bundle := add_bundle(spool))
    make_shipper(spool, DirectoryBucket(root)).ship_pending()
    before = (root / key).read_bytes(), (root / key).stat().st_ino
    spool.path(bundle.id, EVICTED_SHIPPED).unlink()
    assert make_shipper(spool, DirectoryBucket(root)).ship_pending().complete
    assert files(root) == [key]
    assert ((root / key).read_bytes(), (root / key).stat().st_ino) == before


def test_stop_leaves_tombstones_for_the_next_run(spool, root):
    for number in range(3):
        evict(spool, add_bundle(spool, time_ms=NOON + number))
    stop = StopSignal()
    shipper = make_shipper(
        spool, DirectoryBucket(root), stop=stop, on_outcome=lambda outcome: stop.set()
    )
    summary = shipper.ship_pending()
    assert (len(summary.tombstones), summary.tombstones_left, summary.complete) == (1, 2, False)


def test_what_the_agent_writes_reads_back_as_it_is(spool):
    bundle = add_bundle(spool, incident={"id": "i"})
    made = make_tombstone(bundle, bundle.manifest(), "2026-01-02T03:04:05+00:00")
    assert read_tombstone(bundle.id, as_bytes(made)) == made


def mark(spool, bundle):
    path = spool.path(bundle.id, ".quarantined")
    return json.loads(path.read_bytes()) if path.exists() else None


def corrupt(bundle):
    bundle.archive.write_bytes(b"evidenc3")
    return bundle


def test_bad_bundle_bears_a_mark_until_it_is_repaired(spool, root):
    bad = corrupt(add_bundle(spool))
    shipper = make_shipper(spool, DirectoryBucket(root))
    shipper.ship_pending()
    found = mark(spool, bad)
    assert (found["id"], "sha256" in found["reason"]) == (bad.id, True)
    assert found["remedy"]
    assert bad.archive.stat().st_size in found["stamp"]
    counts = spool.counts()
    assert (counts.quarantined, counts.pending, counts.made) == (1, 0, 1)
    bad.archive.write_bytes(b"evidence")
    assert shipper.ship_pending().complete
    assert mark(spool, bad) is None
    assert (spool.counts().delivered, spool.counts().made) == (1, 1)


def test_mark_goes_with_its_bundle_also_when_another_run_made_it(spool, root):
    bad = corrupt(add_bundle(spool))
    make_shipper(spool, DirectoryBucket(root)).ship_pending()
    evict(spool, bad)
    counts = spool.counts()
    assert (counts.evicted, counts.quarantined, counts.made) == (1, 0, 1)
    make_shipper(spool, DirectoryBucket(root)).ship_pending()
    assert mark(spool, bad) is None
    assert spool.counts() == counts


def test_mark_of_a_killed_run_goes_when_the_bundle_is_delivered(spool, root):
    bundle = add_bundle(spool)
    spool.mark_quarantined(bundle.id, {"reason": "of a run that was killed before it repented"})
    make_shipper(spool, DirectoryBucket(root)).ship_pending()
    assert mark(spool, bundle) is None
    assert spool.counts().delivered == 1


def test_spool_that_takes_no_mark_is_asked_again_and_ships_on(spool, root):
    bad, good = corrupt(add_bundle(spool)), add_bundle(spool)
    in_the_way = spool.path(bad.id, ".quarantined")
    in_the_way.mkdir()
    shipper = make_shipper(spool, DirectoryBucket(root))
    assert [one.bundle_id for one in shipper.ship_pending().shipped] == [good.id]
    assert (spool.counts().quarantined, spool.counts().pending) == (0, 1)
    in_the_way.rmdir()
    shipper.ship_pending()
    assert spool.counts().quarantined == 1


def test_network_fault_makes_no_mark(spool, root):
    bundle = add_bundle(spool)
    make_shipper(spool, FaultyDestination(root, *[NetworkFault("lost")] * 9)).ship_pending()
    assert mark(spool, bundle) is None


def test_agent_and_shipper_agree_on_what_went(spool, root):
    """The agent's own cleaning, at the hard limit, with one bundle in quarantine."""
    bad = corrupt(add_bundle(spool, time_ms=NOON))
    kept = add_bundle(spool, b"x" * 800, time_ms=NOON + 9)
    shipper = make_shipper(spool, FaultyDestination(root, *[NetworkFault("lost")] * 3))
    shipper.ship_pending()
    assert spool.counts().quarantined == 1
    limits = CleanupConfig(max_total_log_size_mb=804 / (1 << 20), min_free_mb=0)
    SpaceWatcher(spool, limits, Audit(enabled=False)).clean()
    assert not kept.archive.exists(), "less than 90 % was left only without both"
    make_shipper(spool, DirectoryBucket(root)).ship_pending()
    told = [json.loads((root / name).read_bytes()) for name in files(root)]
    assert {one["id"]: one["quarantined"] for one in told} == {bad.id: True, kept.id: False}
    assert not Path(spool.path(bad.id, DONE)).exists()
