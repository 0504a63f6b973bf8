"""One shipper for the inboxes of many hosts."""

import json

import pytest

from agent.service.stop_signal import StopSignal
from agent.storage.folding import FOLD_AFTER_SEC
from agent.storage.spool import SHIPPED
from shipper.configuration.schema import DirectoryDestination, LimitsConfig, ShipperConfig
from shipper.destinations.directory_destination import DirectoryBucket
from shipper.shipping.shipper import Shipper
from shipper.spools.inbox_keeper import INTERVAL_SEC, InboxKeeper
from shipper.spools.sources import Source, find_sources
from tests.shipper_support import (
    NOON,
    QUICK,
    FaultyDestination,
    add_bundle,
    make_shipper,
    new_spool,
)


@pytest.fixture
def config(tmp_path):
    return ShipperConfig(
        spool=tmp_path / "spool",
        destination=DirectoryDestination(tmp_path / "bucket"),
        inbox=tmp_path / "inbox",
        retry=QUICK,
        limits=LimitsConfig(concurrency=1),
    )


@pytest.fixture
def inbox_of(config):
    return lambda host: new_spool(config.inbox / host)


def ship(config, destination=None):
    destination = destination or DirectoryBucket(config.destination.path)
    return Shipper(config, destination, StopSignal()).ship_pending()


def test_sources_are_the_own_spool_and_every_plain_inbox(config, inbox_of):
    assert [source.host for source in find_sources(config)] == [None]
    for host in ("web-2", "web-1"):
        inbox_of(host)
    (config.inbox / "a file").write_bytes(b"")
    (config.inbox / ".hidden").mkdir()
    (config.inbox / "-rf").mkdir()
    (config.inbox / "link").symlink_to(config.inbox / "web-1")
    assert [source.host for source in find_sources(config)] == [None, "web-1", "web-2"]


def test_host_in_the_key_is_the_inboxs_and_the_manifest_stays_as_it_is(config, inbox_of):
    bundle = add_bundle(inbox_of("web-1"), host="web-2")
    manifest = bundle.done.read_bytes()
    (outcome,) = ship(config).shipped
    assert outcome.key.startswith("web-1/")
    assert outcome.host == "web-1"
    stored = (config.destination.path / outcome.key.replace(".tar.zst", ".json")).read_bytes()
    assert stored == manifest


def test_one_more_hop_changes_no_key(config, inbox_of, tmp_path):
    direct = new_spool(tmp_path / "direct")
    bundle = add_bundle(direct, host="web-1")
    copy = inbox_of("web-1")
    for path in (bundle.archive, bundle.done):
        (copy.batches / path.name).write_bytes(path.read_bytes())
    (there,) = make_shipper(direct, DirectoryBucket(tmp_path / "other")).ship_pending().shipped
    (relayed,) = ship(config).shipped
    assert relayed.key == there.key


def test_delivered_bundle_leaves_its_inbox_and_its_receipt_stays(config, inbox_of):
    inbox = inbox_of("web-1")
    bundle = add_bundle(inbox)
    own = new_spool(config.spool)
    kept = add_bundle(own)
    assert ship(config).complete
    assert not bundle.archive.exists()
    assert not bundle.done.exists()
    assert json.loads(inbox.path(bundle.id, ".shipped").read_bytes())["id"] == bundle.id
    assert inbox.counts().delivered == 1
    assert kept.archive.exists(), "the own spool is the agent's to clean"


def test_hosts_take_turns(config, inbox_of):
    for number in range(20):
        add_bundle(inbox_of("a-flood"), time_ms=NOON + number)
    for host in ("web-1", "web-2"):
        add_bundle(inbox_of(host), time_ms=NOON)
    outcomes = []
    Shipper(
        config, DirectoryBucket(config.destination.path), StopSignal(), outcomes.append
    ).ship_pending()
    assert {outcome.host for outcome in outcomes[:3]} == {"a-flood", "web-1", "web-2"}
    assert len(outcomes) == 22


def test_host_that_comes_late_does_not_catch_up_what_others_had_in_earlier_rounds(config, inbox_of):
    outcomes = []
    destination = DirectoryBucket(config.destination.path)
    shipper = Shipper(config, destination, StopSignal(), outcomes.append)
    for number in range(20):
        add_bundle(inbox_of("early"), time_ms=NOON + number)
    shipper.ship_pending()
    outcomes.clear()
    for number in range(10):
        for host in ("early", "late"):
            add_bundle(inbox_of(host), time_ms=NOON + number)
    shipper.ship_pending()
    assert [outcome.host for outcome in outcomes[:10]].count("early") >= 4


def test_turns_of_hosts_go_by_the_size_of_their_bundles(config, inbox_of):
    outcomes = []
    for number in range(20):
        add_bundle(inbox_of("large"), b"x" * 2_000_000, time_ms=NOON + number)
        add_bundle(inbox_of("small"), time_ms=NOON + number)
    destination = DirectoryBucket(config.destination.path)
    Shipper(config, destination, StopSignal(), outcomes.append).ship_pending()
    assert [outcome.host for outcome in outcomes[:20]].count("large") <= 2


def test_tombstone_lies_in_its_inboxs_folder_whatever_host_it_names(config, inbox_of):
    inbox = inbox_of("web-1")
    bundle = add_bundle(inbox, host="web-2")
    inbox.remove(bundle, {"id": bundle.id, "host": "web-2"})
    (outcome,) = ship(config).tombstones
    assert outcome.key.startswith("web-1/")


def test_inbox_that_cannot_be_listed_holds_no_other_back(config, inbox_of):
    bad = inbox_of("a-bad")
    bad.batches.rmdir()
    bad.batches.write_bytes(b"no directory")
    add_bundle(inbox_of("web-1"))
    summary = ship(config)
    assert [outcome.host for outcome in summary.shipped] == ["web-1"]
    assert summary.fault.kind == "host"
    assert not summary.blocked


def test_new_bundles_take_their_turn_within_a_round(config, inbox_of):
    old = [add_bundle(inbox_of("web-1"), time_ms=NOON + number) for number in range(5)]
    destination = FaultyDestination(config.destination.path)
    late = []

    def news():
        if late or len(destination.seen) < 2:
            return False
        late.append(add_bundle(inbox_of("web-1"), time_ms=NOON + 99))
        return True

    summary = Shipper(config, destination, StopSignal()).ship_pending(news)
    assert summary.complete
    assert destination.seen == [old[4].id, old[3].id, late[0].id, *(one.id for one in old[2::-1])]


def test_keeper_clears_what_a_killed_run_left(inbox_of):
    inbox = inbox_of("web-1")
    bundle = add_bundle(inbox)
    inbox.write_receipt(bundle.id, {"id": bundle.id})
    InboxKeeper().keep(Source(inbox, "web-1"))
    assert not bundle.archive.exists()
    assert inbox.counts().delivered == 1


def test_keeper_folds_receipts_that_are_old(inbox_of):
    inbox = inbox_of("web-1")
    bundles = [add_bundle(inbox, time_ms=NOON + number) for number in range(2)]
    for bundle in bundles:
        inbox.write_receipt(bundle.id, {})
    later = bundles[0].done.stat().st_mtime + 2 * FOLD_AFTER_SEC
    InboxKeeper(wall=lambda: later).keep(Source(inbox, "web-1"))
    assert not inbox.path(bundles[0].id, SHIPPED).exists()
    assert inbox.counts().delivered == 2


def test_keeper_bounds_the_quarantine_oldest_first(inbox_of):
    inbox = inbox_of("web-1")
    bundles = [add_bundle(inbox, b"x" * 100, time_ms=NOON + number) for number in range(4)]
    for bundle in bundles:
        inbox.mark_quarantined(bundle.id, {"reason": "bad"})
    bundles[0].done.write_bytes(b"no manifest")
    InboxKeeper(quarantine_bytes=250).keep(Source(inbox, "web-1"))
    assert [bundle.archive.exists() for bundle in bundles] == [False, False, True, True]
    assert inbox.undelivered_tombstones() == [bundle.id for bundle in bundles[:2]]
    counts = inbox.counts()
    assert (counts.made, counts.evicted, counts.quarantined) == (4, 2, 2)


def test_keeper_leaves_own_spools_alone_and_looks_hourly(inbox_of):
    inbox = inbox_of("web-1")
    now = [0.0]
    keeper = InboxKeeper(steady=lambda: now[0])
    bundle = add_bundle(inbox)
    inbox.write_receipt(bundle.id, {})
    keeper.keep(Source(inbox))
    assert bundle.archive.exists()
    keeper.keep(Source(inbox, "web-1"))
    second = add_bundle(inbox)
    inbox.write_receipt(second.id, {})
    keeper.keep(Source(inbox, "web-1"))
    assert second.archive.exists()
    now[0] = INTERVAL_SEC
    keeper.keep(Source(inbox, "web-1"))
    assert not second.archive.exists()
