"""Staging directories that hold more than a killed run left: the next start takes what is the
agent's, follows nothing, and tells the rest."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from agent.collection.bundle import BundleWriter
from agent.collection.quick_actions import QUICK_ACTIONS
from agent.collection.surroundings import HostFacts
from agent.config_loader import load_config
from agent.controller import Controller
from agent.storage.spool import Spool
from agent.storage.ulid import new_ulid
from tests.bundles import members, sealer
from tests.evidence import Journal, make_action, make_events
from tests.live_agent import CONFIG

HOST = HostFacts("client-7", "6.1.0-test", "9.9.9")
ACTIONS = [action for action in QUICK_ACTIONS if action.name in {"stats", "dmesg", "stacks"}]
SECRET = "what is outside"
OWN = {"manifest.json", "cifsstats.log", "dmesg.log"}
STRANGE_NAMES = (b"-rf", b"two\nlines", b"\x1b[2Jscreen", b"n" * 200, b"\xff\xfe", b".hidden", b"*")


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    spool = Spool(tmp_path / "spool")
    spool.prepare()
    return spool


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """A directory with a file, on the spool's file system; at the end both are as they were."""
    directory = tmp_path / "outside"
    directory.mkdir()
    (directory / "shadow").write_text(SECRET)
    yield directory
    assert [path.name for path in directory.iterdir()] == ["shadow"]
    assert (directory / "shadow").read_text() == SECRET


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(tmp_path)
    yield journal
    journal.close()


def begin(spool: Spool) -> Path:
    """A collection that came as far as its draft and two actions."""
    order = make_action(make_events(30))
    writer = BundleWriter(spool, HOST, sealer(spool))
    staging = writer.open_staging(order)
    writer.draft(order, ACTIONS)
    (staging / "cifsstats.log").write_text("half of the st")
    (staging / "dmesg.log").write_text("what the kernel said")
    return staging


def change_draft(staging: Path, **fields: object) -> None:
    draft = json.loads((staging / "manifest.json").read_text())
    (staging / "manifest.json").write_text(json.dumps({**draft, **fields}))


def start(spool: Spool, journal: Journal) -> list[dict[str, str]]:
    """What the audit has of an agent that starts on ``spool`` and ends at once."""
    config = replace(load_config(CONFIG).config, aod_output_dir=spool.root)
    controller = Controller(config, lambda stop: None, dict, None)
    controller.audit = journal.audit
    controller.start()
    controller.shutdown()
    return [entry for entry in journal.entries() if entry["AOD_EVENT"] == "recovered"]


def test_strange_files_are_left_out_of_the_bundle_and_told(
    spool: Spool, outside: Path, journal: Journal
) -> None:
    staging = begin(spool)
    for name in STRANGE_NAMES:
        Path(os.fsdecode(os.fsencode(staging) + b"/" + name)).write_text(SECRET)
    (staging / "shadow.log").symlink_to(outside / "shadow")
    (staging / "linked").symlink_to(outside)
    os.mkfifo(staging / "pipe")
    (staging / "deep" / "deeper").mkdir(parents=True)
    (staging / "deep" / "deeper" / "up").symlink_to(outside)
    (entry,) = start(spool, journal)
    assert (entry["AOD_BUNDLE"], entry["AOD_FATE"]) == (staging.name, "finished")
    assert r"none of the agent's: " in entry["MESSAGE"]
    assert "and 1 more" in entry["MESSAGE"]
    assert entry["MESSAGE"].isprintable()
    (bundle,) = spool.finished()
    files = members(bundle)
    assert set(files) >= OWN
    assert set(files) == {"manifest.json", *(f["name"] for f in bundle.manifest()["files"])}
    assert len(files) == len(OWN) + 5, "and the evidence"
    assert not any(SECRET.encode() in content for content in files.values())
    assert list(spool.staging.iterdir()) == []


@pytest.mark.parametrize("link", ["symbolic", "hard"])
def test_a_link_in_the_place_of_an_output_is_not_read(
    spool: Spool, outside: Path, journal: Journal, link: str
) -> None:
    staging = begin(spool)
    (staging / "dmesg.log").unlink()
    if link == "symbolic":
        (staging / "dmesg.log").symlink_to(outside / "shadow")
    else:
        (staging / "dmesg.log").hardlink_to(outside / "shadow")
    (entry,) = start(spool, journal)
    assert entry["AOD_FATE"] == "finished"
    assert "'dmesg.log'" in entry["MESSAGE"]
    (bundle,) = spool.finished()
    assert "dmesg.log" not in members(bundle)
    outputs = {action["name"]: action["file"] for action in bundle.manifest()["actions"]}
    assert outputs == {"stats": "cifsstats.log", "dmesg": None, "stacks": None}


def test_ten_thousand_files_are_not_packed(spool: Spool, journal: Journal) -> None:
    staging = begin(spool)
    for number in range(10_000):
        (staging / f"file-{number}.log").write_text("x")
    (entry,) = start(spool, journal)
    assert "and 9,990 more" in entry["MESSAGE"]
    (bundle,) = spool.finished()
    assert len(members(bundle)) == len(OWN) + 5


@pytest.mark.parametrize("name", ["../../../outside/shadow", "{outside}/shadow", "."])
def test_a_draft_names_no_file_but_those_beside_it(
    spool: Spool, outside: Path, journal: Journal, name: str
) -> None:
    staging = begin(spool)
    wanted = name.format(outside=outside)
    change_draft(staging, actions=[{"name": "stats", "status": "ok", "file": wanted}])
    (entry,) = start(spool, journal)
    assert entry["AOD_FATE"] == "finished"
    (bundle,) = spool.finished()
    assert bundle.manifest()["actions"] == [{"name": "stats", "status": "ok", "file": None}]
    assert not any(SECRET.encode() in content for content in members(bundle).values())


@pytest.mark.parametrize(
    "actions", [None, 7, {"file": "x"}, [7], [["file"]], [{"file": 7}], [{"file": ["x"]}]]
)
def test_a_malformed_draft_is_discarded(spool: Spool, journal: Journal, actions: object) -> None:
    change_draft(begin(spool), actions=actions)
    whole = begin(spool)
    entries = start(spool, journal)
    assert sorted(entry["AOD_FATE"] for entry in entries) == ["discarded", "finished"]
    assert [bundle.id for bundle in spool.finished()] == [whole.name]


@pytest.mark.parametrize("draft", ['{"id": "%s", "actions": [], "x": "\\ud800"}', "[" * 100_000])
def test_a_draft_that_breaks_what_reads_it_breaks_no_start(
    spool: Spool, journal: Journal, draft: str
) -> None:
    staging, whole = begin(spool), begin(spool)
    (staging / "manifest.json").write_text(draft.replace("%s", staging.name))
    fates = {e["AOD_BUNDLE"]: e["AOD_FATE"] for e in start(spool, journal)}
    assert fates == {staging.name: "kept", whole.name: "finished"}
    assert spool.counts().made == 1


def as_link(path: Path, outside: Path) -> None:
    path.symlink_to(outside / "shadow")


def as_pipe(path: Path, outside: Path) -> None:
    os.mkfifo(path)


def as_device(path: Path, outside: Path) -> None:
    os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(1, 5))  # /dev/zero has no end


@pytest.mark.parametrize("plant", [as_link, as_pipe, as_device])
def test_a_draft_that_is_no_plain_file_is_none(
    spool: Spool,
    outside: Path,
    journal: Journal,
    plant: Callable[[Path, Path], None],
) -> None:
    staging = begin(spool)
    (staging / "manifest.json").unlink()
    plant(staging / "manifest.json", outside)
    (entry,) = start(spool, journal)
    assert entry["AOD_FATE"] == "discarded"
    assert spool.counts().made == 0


def test_what_is_no_directory_of_a_bundle_stays_and_is_told(
    spool: Spool, outside: Path, journal: Journal
) -> None:
    linked, plain = new_ulid(), new_ulid()
    (spool.staging / linked).symlink_to(outside)
    (spool.staging / plain).write_text("a file")
    (spool.staging / "a\x1b[2J").mkdir()
    before = set(spool.staging.iterdir())
    (entry,) = start(spool, journal)
    assert "AOD_BUNDLE" not in entry
    assert all(name in entry["MESSAGE"] for name in (linked, plain, r"a\x1b[2J"))
    assert set(spool.staging.iterdir()) == before
    assert spool.counts().made == 0
