import contextlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from shipper.configuration.schema import DirectoryDestination, ShipperConfig
from shipper.status.heartbeat import FAULTS_TOLD, SIZE_LIMIT, heartbeat, relayed_heartbeat
from shipper.status.shipper_state import PAUSED, FaultNote, ShipperState, StateFile
from shipper.status.status import read_status
from tests.shipper_support import NOON, add_bundle, new_spool

NOW = NOON / 1000 + 60
DENIED = FaultNote("destination", "denied", "allow it", "2026-01-01T12:00:00+00:00")


@pytest.fixture
def spool(tmp_path):
    return new_spool(tmp_path / "spool")


@pytest.fixture
def config(spool):
    return ShipperConfig(spool.root, DirectoryDestination(Path("/bucket")), prefix="fleet")


def beat(config):
    status = read_status(config, "store", NOW)
    return heartbeat(status, "web 1", "6.1.0", config.prefix, 900)


def test_host_tells_how_it_stands(spool, config):
    add_bundle(spool, time_ms=NOON, agent_version="0.9")
    bad = add_bundle(spool, time_ms=NOON - 1)
    spool.mark_quarantined(bad.id, {})
    StateFile(spool.batches).write(
        ShipperState(PAUSED, [DENIED], since=DENIED.since, last_success="2026-01-01T11:00:00+00:00")
    )
    document = beat(config)
    assert (document.kind, document.name) == ("heartbeat", "web 1")
    assert document.key == "fleet/web_1/heartbeat.json"
    content = json.loads(document.content)
    assert content["bundles"] == {
        "made": 2,
        "delivered": 0,
        "pending": 1,
        "evicted": 0,
        "quarantined": 1,
    }
    expected = {
        "schema": 1,
        "host": "web 1",
        "time": "2026-01-01T12:01:00+00:00",
        "interval_sec": 900,
        "agent_version": "0.9",
        "kernel": "6.1.0",
        "state": "paused",
        "since": DENIED.since,
        "last_success": "2026-01-01T11:00:00+00:00",
        "pending": 1,
        "pending_bytes": 8,
        "oldest_pending_age_sec": 60,
        "spool_fault": None,
    }
    assert {name: content[name] for name in expected} == expected
    assert content["faults"] == [
        {
            "kind": "destination",
            "message": "denied",
            "remedy": "allow it",
            "since": DENIED.since,
            "bundle": None,
        }
    ]
    assert "inboxes" not in content


def test_many_faults_do_not_swell_it(spool, config):
    faults = [replace(DENIED, bundle=str(n)) for n in range(FAULTS_TOLD + 100)]
    StateFile(spool.batches).write(ShipperState(faults=faults))
    assert len(json.loads(beat(config).content)["faults"]) == FAULTS_TOLD


def test_central_host_tells_of_its_inboxes_as_a_whole(config, tmp_path):
    config = replace(config, inbox=tmp_path / "inbox")
    for host in ("web-1", "web-2"):
        add_bundle(new_spool(config.inbox / host), time_ms=NOON)
    content = json.loads(beat(config).content)
    assert content["pending"] == 0
    assert content["inboxes"] == {
        "hosts": 2,
        "pending": 2,
        "pending_bytes": 16,
        "oldest_pending_age_sec": 60,
    }


def test_spool_that_cannot_be_counted_is_told(spool, config):
    (spool.root / "history.json").write_text("[]")
    content = json.loads(beat(config).content)
    assert content["bundles"] is None
    assert "history.json is no history" in content["spool_fault"]


def test_relay_adds_when_and_trusts_no_name(config):
    sent = beat(config).content
    document = relayed_heartbeat(sent, "web-7", "fleet", "2026-01-01T12:02:00+00:00")
    assert document.key == "fleet/web-7/heartbeat.json"
    added = {"host": "web-7", "relayed_at": "2026-01-01T12:02:00+00:00"}
    assert json.loads(document.content) == json.loads(sent) | added


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"{}", b'{"schema": "1"}', b"\xff", b"[" * 60_000, b" " * SIZE_LIMIT + b"{}"],
)
def test_what_is_no_heartbeat_is_not_relayed(content):
    with pytest.raises(ValueError, match=r"heartbeat|larger|nested|JSON|Expecting|decode"):
        relayed_heartbeat(content, "web-7", "", "now")


@pytest.mark.parametrize("number", [b"NaN", b"-Infinity", b"1e999"])
def test_what_other_readers_take_for_no_json_is_not_relayed(number):
    with pytest.raises(ValueError, match="JSON compliant"):
        relayed_heartbeat(b'{"schema": 1, "pending": ' + number + b"}", "web-7", "", "now")


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
@pytest.mark.parametrize("depth", range(980, 1000))
def test_deep_heartbeat_is_relayed_or_refused_and_ends_nothing(opening, depth):
    """Where exactly Python gives up depends on its version, and on the call."""
    closing = {b"[": b"]", b'{"a":': b"}"}[opening]
    nested = opening * depth + b"1" + closing * depth
    with contextlib.suppress(ValueError):
        relayed_heartbeat(b'{"schema": 1, "x": ' + nested + b"}", "web-7", "", "now")
