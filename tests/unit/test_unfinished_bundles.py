"""What the next start makes of the staging directories of an agent that was killed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agent.collection.bundle import BundleWriter
from agent.collection.quick_actions import QUICK_ACTIONS
from agent.collection.surroundings import HostFacts, Surroundings
from agent.collection.unfinished_bundles import Recovered, UnfinishedBundles
from agent.configuration.schema import CollectionConfig
from agent.storage.durable_file import temporary_beside
from agent.storage.spool import ARCHIVE, Spool
from agent.storage.ulid import new_ulid
from tests.bundles import members, sealer
from tests.evidence import make_action, make_events

HOST = HostFacts("client-7", "6.1.0-test", "9.9.9")
ACTIONS = [action for action in QUICK_ACTIONS if action.name in {"stats", "dmesg"}]


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    spool = Spool(tmp_path / "spool")
    spool.prepare()
    return spool


def begin(spool: Spool) -> Path:
    """A collection that came as far as its draft and the first action."""
    order = make_action(make_events(30))
    writer = BundleWriter(spool, HOST, sealer(spool))
    staging = writer.open_staging(order)
    writer.draft(order, ACTIONS)
    (staging / "cifsstats.log").write_text("half of the st")
    return staging


def restart(spool: Spool) -> list[Recovered]:
    spool.recover()
    return list(UnfinishedBundles(spool, Surroundings(), CollectionConfig).recover())


def test_a_collection_with_its_evidence_becomes_a_bundle(spool: Spool) -> None:
    staging = begin(spool)
    temporary_beside(staging / "events.npy").write_bytes(b"half")
    (recovered,) = restart(spool)
    assert (recovered.bundle_id, recovered.fate) == (staging.name, "finished")
    (bundle,) = spool.finished()
    files = members(bundle)
    manifest = json.loads(files["manifest.json"])
    assert manifest["interrupted"] is True
    assert manifest["recovered"] > manifest["created"]
    assert {action["name"]: action["file"] for action in manifest["actions"]} == {
        "stats": "cifsstats.log",
        "dmesg": None,
    }
    assert {action["status"] for action in manifest["actions"]} == {"interrupted"}
    assert {entry["name"] for entry in manifest["files"]} == set(files) - {"manifest.json"}
    assert manifest["events"] == 30
    assert files["cifsstats.log"] == b"half of the st"
    assert list(spool.staging.iterdir()) == []
    assert restart(spool) == []


def test_without_its_evidence_it_is_discarded_and_told(spool: Spool) -> None:
    staging = spool.staging / new_ulid()
    staging.mkdir()
    (staging / "events.npy").write_bytes(b"...")
    (recovered,) = restart(spool)
    assert (recovered.bundle_id, recovered.fate) == (staging.name, "discarded")
    assert spool.counts().made == 0
    assert list(spool.staging.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"id": "another"}', b"\xff\xfe"])
def test_a_damaged_draft_is_none(spool: Spool, content: bytes) -> None:
    staging = begin(spool)
    (staging / "manifest.json").write_bytes(content)
    assert [one.fate for one in restart(spool)] == ["discarded"]


def test_a_bundle_that_is_there_is_not_made_twice(spool: Spool) -> None:
    staging = begin(spool)
    restart(spool)
    (bundle,) = spool.finished()
    staging.mkdir()
    (staging / "manifest.json").write_text(json.dumps({"id": staging.name, "actions": []}))
    (recovered,) = restart(spool)
    assert (recovered.fate, recovered.why) == ("discarded", "its bundle is there")
    assert spool.finished() == [bundle]


def test_one_that_cannot_be_finished_is_kept_for_the_next_start(spool: Spool) -> None:
    staging, other = begin(spool), begin(spool)
    spool.path(staging.name, ARCHIVE).mkdir()
    assert {one.bundle_id: one.fate for one in restart(spool)} == {
        staging.name: "kept",
        other.name: "finished",
    }
    assert [bundle.id for bundle in spool.finished()] == [other.name]
    spool.path(staging.name, ARCHIVE).rmdir()
    assert [one.fate for one in restart(spool)] == ["finished"]


def test_one_that_was_killed_when_it_was_cleaned_says_all_that_was_taken_out(spool: Spool) -> None:
    staging = begin(spool)
    cleaned = json.loads((staging / "manifest.json").read_text()) | {
        "interrupted": False,
        "redacted": {"password": 3},
        "files": [{"name": "cifsstats.log", "size": 14, "cut_bytes": 70}],
    }
    (staging / "manifest.json").write_text(json.dumps(cleaned))
    (staging / "dmesg.log").write_text("password=Gone4ever")
    restart(spool)
    (bundle,) = spool.finished()
    manifest = json.loads(members(bundle)["manifest.json"])
    assert manifest["interrupted"] is True
    assert manifest["redacted"] == {"password": 4}
    assert {one["name"]: one["cut_bytes"] for one in manifest["files"] if one["cut_bytes"]} == {
        "cifsstats.log": 70
    }


def test_parts_of_an_interrupted_action_go_with_it(spool: Spool) -> None:
    staging = begin(spool)
    (staging / "dmesg.log.12").write_text("half")
    (staging / "others.log.12").write_text("nobody's")
    spool.path(staging.name, ARCHIVE).mkdir()
    assert [one.fate for one in restart(spool)] == ["kept"]
    (staging / "others.log.13").write_text("nobody's")
    spool.path(staging.name, ARCHIVE).rmdir()
    (recovered,) = restart(spool)
    assert recovered.why == (
        "its evidence is whole; left out, as none of the agent's: 'others.log.13'"
    )
    (bundle,) = spool.finished()
    files = members(bundle)
    assert files["dmesg.log.12"] == b"half"
    assert not {name for name in files if name.startswith("others")}
