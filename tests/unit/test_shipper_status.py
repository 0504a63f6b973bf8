"""The status of a host and of a central one: figures and words."""

import json
import os
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest

from agent.storage.tombstone import make_tombstone
from shipper.configuration.schema import DirectoryDestination, ShipperConfig
from shipper.spools.lock_holder import Holder, find_holder
from shipper.spools.spool_lock import SpoolLock
from shipper.status.shipper_state import PAUSED, SHIPPING, FaultNote, ShipperState, StateFile
from shipper.status.status import read_status
from shipper.status.status_text import hosts_text, status_text
from tests.rights import unprivileged
from tests.shipper_support import NOON, add_bundle, new_spool, put_in_spool

NOW = NOON / 1000 + 3 * 3600
SINCE = "2026-01-01T14:00:00+00:00"
DENIED = FaultNote("destination", "s3://b: AccessDenied", "allow s3:PutObject", SINCE)


@pytest.fixture
def spool(tmp_path):
    return new_spool(tmp_path / "spool")


@pytest.fixture
def config(spool):
    return ShipperConfig(spool.root, DirectoryDestination(Path("/bucket")))


@pytest.fixture
def central(config, tmp_path):
    """With inboxes of web-1 and web-2."""
    config = replace(config, inbox=tmp_path / "inbox")
    config.inbox.mkdir()
    for host in ("web-1", "web-2"):
        new_spool(config.inbox / host)
    return config


def inbox(config, host):
    return new_spool(config.inbox / host)


def read(config):
    return read_status(config, "directory /bucket", NOW)


def deliver(spool, bundle, **receipt):
    spool.write_receipt(bundle.id, {"id": bundle.id, **receipt})


def evict(spool, bundle):
    spool.remove(bundle, make_tombstone(bundle, bundle.manifest(), SINCE))


def test_every_fate_is_told(spool, config):
    oldest, newest = add_bundle(spool, b"12", NOON), add_bundle(spool, b"1", NOON + 1_800_000)
    sent, evicted, bad = (add_bundle(spool, time_ms=NOON - 1000) for _ in range(3))
    deliver(spool, sent, shipped_at=SINCE, key="filer-1/x.tar.zst")
    evict(spool, evicted)
    spool.mark_quarantined(bad.id, {})
    status = read(config)
    total = status.total
    assert (total.counts.pending, total.counts.pending_bytes, total.counts.made) == (2, 3, 5)
    assert (total.oldest_pending.id, total.newest_pending.id) == (oldest.id, newest.id)
    assert (total.oldest_pending.age_sec, total.newest_pending.age_sec) == (10_800, 9_000)
    text = status_text(status)
    for line in (
        "pending        2 (3 B); shipped in: unknown",
        f"oldest         {oldest.id} (3.0 h old)",
        f"newest         {newest.id} (2.5 h old)",
        "delivered      1",
        "evicted        1 (never shipped: the spool was full), 1 of which",
        "quarantined    1 (",
        f"last delivery  {SINCE} filer-1/x.tar.zst",
    ):
        assert f"\n{line}" in text
    assert json.loads(status.as_json())["counts"]["evicted"] == 1


def test_an_only_bundle_is_shown_once(spool, config):
    add_bundle(spool)
    assert "newest" not in status_text(read(config))


def test_nobody_who_ships_is_in_the_way_of_what_is_pending(spool, config):
    assert read(config).is_fine
    add_bundle(spool)
    status = read(config)
    assert not status.is_fine
    assert "shipper        NOT RUNNING" in status_text(status)
    with SpoolLock(spool.batches):
        status = read(config)
        assert status.is_fine
        assert status.running == Holder(os.getpid())
        assert f"shipper        process {os.getpid()}" in status_text(status)
    assert read(config).running is None, "to ask is not to hold"


def test_holder_that_the_kernel_does_not_list_is_found_by_trying(spool, monkeypatch):
    monkeypatch.setattr("shipper.spools.lock_holder.holding_process", lambda descriptor: None)
    with SpoolLock(spool.batches):
        assert find_holder(spool.batches) == Holder(None)
    assert find_holder(spool.batches) is None
    with SpoolLock(spool.batches):
        pass


def test_pause_has_cause_cure_and_next_try(spool, config):
    add_bundle(spool)
    StateFile(spool.batches).write(
        ShipperState(PAUSED, [DENIED], since=SINCE, next_try="2026-01-01T15:00:40+00:00")
    )
    with SpoolLock(spool.batches):
        status = read(config)
    assert not status.is_fine
    text = status_text(status)
    for line in (
        f"state          PAUSED: something is in the way of all bundles, since {SINCE} (1.0 h)",
        "  next try     2026-01-01T15:00:40+00:00 (in 40 s)",
        "fault          destination: s3://b: AccessDenied",
        f"  since        {SINCE} (1.0 h ago)",
        "  remedy       allow s3:PutObject",
    ):
        assert f"\n{line}\n" in text


def test_eta_is_told_only_while_it_is_known(spool, config):
    add_bundle(spool, b"x" * 2048)
    state = ShipperState(SHIPPING, bytes_per_sec=1024.0)
    StateFile(spool.batches).write(state)
    assert read(config).eta_sec is None, "nobody ships"
    with SpoolLock(spool.batches):
        assert "pending        1 (2 KiB); shipped in: 2 s at 1 KiB/s" in status_text(read(config))
        for unknown in (replace(state, state=PAUSED), replace(state, bytes_per_sec=None)):
            StateFile(spool.batches).write(unknown)
            assert "shipped in: unknown" in status_text(read(config))


def test_central_host_counts_all_and_lists_each(central, spool):
    add_bundle(spool, b"1", NOON)
    web = inbox(central, "web-2")
    for time_ms in (NOON - 3_600_000, NOON):
        add_bundle(web, b"22", time_ms)
    bad = add_bundle(web)
    web.mark_quarantined(bad.id, {})
    deliver(web, add_bundle(web), shipped_at=SINCE)
    heartbeat = web.root / "heartbeat.json"
    heartbeat.write_text("{}")
    os.utime(heartbeat, (NOW - 60, NOW - 60))
    status = read(central)
    assert [one.host for one in status.sources] == [None, "web-1", "web-2"]
    assert (status.total.counts.pending, status.total.counts.pending_bytes) == (3, 5)
    assert status.total.oldest_pending.age_sec == 4 * 3600
    assert "hosts          2 with an inbox, 1 of them have bundles pending" in status_text(status)
    lines = hosts_text(status).splitlines()
    assert len({len(line) for line in lines[1:]}) == 1, "aligned"
    last, one_before = (" ".join(line.split()) for line in (lines[-1], lines[-2]))
    assert last == "web-2 2 4 B 4.0 h 1 1.0 h ago 1.0 min ago"
    assert one_before == "web-1 0 0 B - 0 - -"


def test_state_of_a_central_host_lies_with_its_inboxes(central):
    StateFile(central.inbox).write(ShipperState(PAUSED, [DENIED]))
    with SpoolLock(central.inbox):
        status = read(central)
    assert status.state.faults == [DENIED]
    assert status.running is not None


def test_spool_that_cannot_be_counted_is_in_the_way(central):
    (central.inbox / "web-1" / "history.json").write_text("[]")
    status = read(central)
    assert not status.is_fine
    assert "NO COUNTS" in status_text(status)
    assert hosts_text(status).splitlines()[2].split() == ["web-1", "unknown", *["-"] * 5]


def test_inbox_that_cannot_be_read_hides_no_other(central):
    add_bundle(inbox(central, "web-1"))
    bad = inbox(central, "a-bad")
    bad.batches.rmdir()
    bad.batches.write_bytes(b"no directory")
    status = read_status(central, "store", NOW)
    (told,) = [one for one in status.sources if one.host == "a-bad"]
    assert "Not a directory" in told.counts.fault
    assert told.counts.fault in status.total.counts.fault
    assert not status.is_fine
    assert status.total.counts.pending == 1


def test_closed_spool_is_an_error_and_no_empty_one(spool, config):
    with unprivileged(spool.batches), pytest.raises(PermissionError):
        read(config)


def test_nothing_from_a_receipt_commands_the_terminal(spool, config):
    deliver(spool, add_bundle(spool), shipped_at="\x1b[2J", key="x\ny")
    text = status_text(read(config))
    assert "\x1b" not in text
    assert "\\x1b[2J x\\ny" in text


def test_nothing_from_the_state_commands_the_terminal(spool, config):
    fault = FaultNote("network", "a\x1b[2Jb\nc", "\x1b]0;d\x07", SINCE)
    StateFile(spool.batches).write(ShipperState("\x1b[31m", [fault]))
    with SpoolLock(spool.batches):
        text = status_text(read(config))
    assert not set(text) & set("\x1b\x07")
    assert "network: a\\x1b[2Jb\\nc" in text


def test_backlog_of_10000_takes_little_memory(spool, config):
    put_in_spool(spool, range(10_000))
    tracemalloc.start()
    try:
        status = read_status(config, "store", NOW)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert status.total.counts.pending == 10_000
    assert peak < 6 << 20
