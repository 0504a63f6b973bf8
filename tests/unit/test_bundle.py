"""A bundle as its readers find it: tar and zstd, NumPy, and line by line as JSON."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import io
import json
import os
import shutil
import stat
import subprocess
import tarfile
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.collection.bundle import BundleWriter
from agent.collection.evidence_files import (
    event_record,
    histogram_tables,
    inflight_records,
    iso_time,
    worst_events,
)
from agent.collection.manifest import Collected
from agent.collection.quick_action import ActionResult
from agent.collection.surroundings import HostFacts
from agent.configuration.schema import CollectionConfig
from agent.detection.anomaly import AnomalyAction
from agent.storage import durable_file
from agent.storage.spool import DONE, Spool, SpooledBundle
from bpf.abi import BUCKETS, COMMANDS, EVENT
from tests.bundles import members, sealer
from tests.evidence import BOOT_WALL_NS, make_action, make_events, make_inflight

HOST = HostFacts("client-7", "6.1.0-test", "9.9.9")
RESULTS = Collected(
    [ActionResult("stats", "cifsstats.log", "ok", 0, "", 0.1, 3)],
    started_ns=BOOT_WALL_NS,
    first_action_ns=60_000_000_000,
    ended_ns=62_000_000_000,
    duration_sec=1.5,
)


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    spool = Spool(tmp_path / "spool")
    spool.prepare()
    return spool


def publish(spool: Spool, action: AnomalyAction) -> SpooledBundle:
    writer = BundleWriter(spool, HOST, sealer(spool))
    staging = writer.open_staging(action)
    (staging / "cifsstats.log").write_text("abc")
    bundle = writer.publish(action, RESULTS, CollectionConfig())
    writer.discard_staging(action)
    return bundle


def json_lines(data: bytes) -> list[dict[str, object]]:
    return [json.loads(line) for line in data.splitlines()]


def test_the_bundle_holds_all_files_the_manifest_first(spool: Spool) -> None:
    files = members(publish(spool, make_action()))
    assert list(files) == [
        "manifest.json",
        "cifsstats.log",
        "events.npy",
        "histograms.json",
        "inflight.jsonl",
        "labels.jsonl",
        "worst_events.jsonl",
    ]
    manifest = json.loads(files["manifest.json"])
    del files["manifest.json"]
    assert {entry["name"]: entry["size"] for entry in manifest["files"]} == {
        name: len(data) for name, data in files.items()
    }


def test_tar_unpacks_it_into_one_directory(spool: Spool, tmp_path: Path) -> None:
    if shutil.which("zstd") is None:
        pytest.skip("tar needs the zstd program")
    bundle = publish(spool, make_action())
    target = tmp_path / "unpacked"
    target.mkdir()
    subprocess.run(["tar", "--zstd", "-xf", bundle.archive, "-C", target], check=True)
    assert [path.name for path in target.iterdir()] == [bundle.id]
    assert (target / bundle.id / "cifsstats.log").read_text() == "abc"
    subprocess.run(["zstd", "--test", "--quiet", bundle.archive], check=True)


def test_manifest_and_marker_say_what_it_is(spool: Spool) -> None:
    action = make_action(make_events(30))
    bundle = publish(spool, action)
    inside = json.loads(members(bundle)["manifest.json"])
    marker = bundle.manifest()
    archive = marker.pop("archive")
    assert marker == inside
    assert archive == {
        "file": bundle.archive.name,
        "size": bundle.archive.stat().st_size,
        "sha256": hashlib.sha256(bundle.archive.read_bytes()).hexdigest(),
    }
    expected = {
        "schema": 1,
        "id": action.id,
        "host": "client-7",
        "kernel": "6.1.0-test",
        "agent_version": "9.9.9",
        "anomaly": "latency",
        "type": "latency",
        "reason": "30 slow commands",
        "source": {"kind": "test"},
        "counters": {"events": 30, "ring_full": 0},
        "events": 30,
        "interrupted": False,
        "label": "",
        "clock": {"wall_minus_monotonic_ns": BOOT_WALL_NS},
    }
    assert {key: inside[key] for key in expected} == expected
    assert inside["trigger"]["command"] == "SMB2_READ"
    assert inside["trigger"]["time_ns"] == action.trigger.time_ns
    assert inside["actions"][0]["status"] == "ok"
    assert inside["collection"] == {
        "started": iso_time(BOOT_WALL_NS),
        "duration_sec": 1.5,
        "delay_ms": (60_000_000_000 - action.trigger.time_ns) / 1_000_000,
    }
    created = datetime.fromisoformat(inside["created"])
    assert created.timestamp() == pytest.approx(action.wall_ns / 1e9)


def test_a_replayed_trigger_has_no_delay(spool: Spool) -> None:
    bundle = publish(spool, dataclasses.replace(make_action(), live=False))
    assert bundle.manifest()["collection"]["delay_ms"] is None


def test_the_phases_are_told_by_both_clocks(spool: Spool) -> None:
    action = dataclasses.replace(make_action(), label="before the upgrade")
    rows = json_lines(members(publish(spool, action))["labels.jsonl"])
    assert [(row["phase"], row["t_mono_ns"]) for row in rows] == [
        ("incident", action.incident.opened_ns),
        ("trigger", action.trigger.time_ns),
        ("collection", RESULTS.first_action_ns),
        ("end", RESULTS.ended_ns),
    ]
    assert {row["t_wall_ns"] - row["t_mono_ns"] for row in rows} == {BOOT_WALL_NS}  # type: ignore[operator]
    assert {row["label"] for row in rows} == {"before the upgrade"}
    replayed = publish(spool, dataclasses.replace(make_action(), live=False))
    phases = [row["phase"] for row in json_lines(members(replayed)["labels.jsonl"])]
    assert phases == ["incident", "trigger"], "this host's clock is not the trace's"


def test_numpy_reads_the_events_back(spool: Spool) -> None:
    events = make_events(5_000, failed_every=7)
    loaded = np.load(
        io.BytesIO(members(publish(spool, make_action(events)))["events.npy"]), allow_pickle=False
    )
    assert loaded.dtype == EVENT
    assert np.array_equal(loaded, events)


def test_a_bundle_without_events_is_fine(spool: Spool) -> None:
    action = make_action()
    empty = dataclasses.replace(action.evidence, events=np.zeros(0, EVENT))
    files = members(publish(spool, dataclasses.replace(action, evidence=empty)))
    assert len(np.load(io.BytesIO(files["events.npy"]))) == 0
    assert files["worst_events.jsonl"] == b""


def test_events_that_are_a_view_are_written_whole(spool: Spool) -> None:
    events = make_events(100)[::3]
    loaded = np.load(io.BytesIO(members(publish(spool, make_action(events)))["events.npy"]))
    assert np.array_equal(loaded, events)


def test_the_worst_events_have_readable_names(spool: Spool) -> None:
    events = make_events(3_000, failed_every=500)
    lines = json_lines(members(publish(spool, make_action(events)))["worst_events.jsonl"])
    assert len(lines) == 1_000
    assert [line["error"] for line in lines[:7]] == ["EACCES"] * 6 + [""]
    slowest = events[events["retval"] == 0]["metric_latency_ns"].max() / 1e6
    assert lines[6]["latency_ms"] == pytest.approx(slowest)
    assert {line["command"] for line in lines} == {"SMB2_READ", "SMB2_WRITE"}
    first = lines[0]
    assert (first["task"], first["pid"]) == ("backup", 4242)
    assert (first["session_id"], first["tree_id"]) == ("0xffff800000000001", "0x5")
    end_ns = first["cmd_end_time_ns"]
    assert isinstance(end_ns, int)
    assert first["time"] == iso_time(BOOT_WALL_NS + end_ns)


@settings(deadline=None)
@given(
    latencies=st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=40),
    failures=st.integers(0, 2**40 - 1),
    limit=st.integers(1, 50),
)
def test_worst_events_agrees_with_sorting_in_python(
    latencies: list[int], failures: int, limit: int
) -> None:
    events = np.zeros(len(latencies), EVENT)
    events["metric_latency_ns"] = latencies
    events["retval"] = [-5 if failures >> n & 1 else 0 for n in range(len(latencies))]
    keys = [(bool(event["retval"] == 0), -int(event["metric_latency_ns"])) for event in events]
    worst = worst_events(events, limit)
    found = [(bool(event["retval"] == 0), -int(event["metric_latency_ns"])) for event in worst]
    assert found == sorted(keys)[:limit]


@given(task=st.binary(min_size=16, max_size=16), retval=st.integers(-(2**31), 2**31 - 1))
def test_any_event_becomes_json(task: bytes, retval: int) -> None:
    event = np.zeros(1, EVENT)
    event["task"] = task
    event["retval"] = retval
    event["smbcommand"] = 0xFFFF
    record = json.loads(json.dumps(event_record(event[0], 0)))
    assert record["command"] == "SMB2_UNKNOWN_65535"
    assert "\0" not in record["task"]


def test_unanswered_commands_are_listed_with_their_age_oldest_first() -> None:
    records = inflight_records(make_inflight([7_000_000, 2_000_000, 90_000_000]), 10_000_000)
    assert [record["age_ms"] for record in records] == [8.0, 3.0, 0.0]
    assert records[0]["task"] == "stuck"


def test_histograms_list_filled_buckets_below_their_bound() -> None:
    histograms = np.zeros((COMMANDS, BUCKETS), np.uint64)
    histograms[8, 20], histograms[8, 63], histograms[5, 0] = 3, 1, 9
    assert histogram_tables(histograms) == {
        "SMB2_CREATE": {"total": 9, "buckets": [{"below_ns": 1, "count": 9}]},
        "SMB2_READ": {
            "total": 4,
            "buckets": [{"below_ns": 2**20, "count": 3}, {"below_ns": 2**63, "count": 1}],
        },
    }


def test_archive_and_members_are_private(spool: Spool) -> None:
    bundle = publish(spool, make_action())
    for path in (bundle.archive, bundle.done):
        assert stat.S_IMODE(path.stat().st_mode) & ~0o640 == 0
    with bundle.archive.open("rb") as file:
        plain = zstandard.ZstdDecompressor().stream_reader(file).read()
    with tarfile.open(fileobj=io.BytesIO(plain)) as tar:
        assert {(m.mode, m.uid, m.gid, m.uname, m.isreg()) for m in tar} == {
            (0o640, 0, 0, "", True)
        }


def test_a_link_in_staging_is_not_followed(spool: Spool, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("key")
    action = make_action()
    writer = BundleWriter(spool, HOST, sealer(spool))
    (writer.open_staging(action) / "cifsstats.log").symlink_to(secret)
    with pytest.raises(durable_file.UnsafeFileError):
        writer.publish(action, RESULTS, CollectionConfig())
    assert list(spool.batches.iterdir()) == []


@pytest.mark.parametrize("broken", ["archive", "marker"])
def test_a_full_disk_while_publishing_leaves_nothing(
    spool: Spool, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    """A fault of ours: fsync is where a file system with delayed allocation reports ENOSPC."""
    real_fsync = os.fsync
    calls = []

    def full(descriptor: int) -> None:
        calls.append(descriptor)
        # the archive, the directory, then the marker
        if len(calls) == (1 if broken == "archive" else 3):
            raise OSError(errno.ENOSPC, "No space left on device")
        real_fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    action = make_action()
    with pytest.raises(OSError, match="No space"):
        publish(spool, action)
    assert list(spool.batches.iterdir()) == []
    assert not spool.path(action.id, DONE).exists()
    assert spool.counts().made == 0
