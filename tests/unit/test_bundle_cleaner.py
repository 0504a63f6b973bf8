"""What a cleaned staging directory holds, and what its manifest says of that."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent.cifs.mounts import parse_mounts
from agent.collection.bundle_cleaner import BINARY, BundleCleaner, known_hosts, known_users
from agent.collection.evidence_files import (
    EVIDENCE_FILES,
    no_aftermath,
    write_evidence,
    write_labels,
)
from agent.collection.quick_actions import QUICK_ACTIONS
from agent.collection.scene import Roots
from agent.configuration.schema import CollectionConfig
from agent.storage.durable_file import UnsafeFileError
from bpf import abi
from tests.evidence import make_action, make_events
from tests.redaction_corpus import examples

SECRET, CLEAN = "password=Gone4ever,vers=3.0\n", "password=[redacted:password],vers=3.0\n"
MANIFEST: dict[str, Any] = {"id": "01", "host": "client-7", "label": "", "actions": []}
MOUNTINFO = (
    "90 22 0:41 / /mnt rw - cifs //nas.corp.example/share rw,username=svc-backup,addr=10.9.8.7\n"
    "91 22 0:42 / /mn2 rw - cifs //10.9.8.6/share rw,sec=krb5\n"
)


@pytest.fixture
def staging(tmp_path: Path) -> Path:
    directory = tmp_path / "staging"
    directory.mkdir()
    write_labels(make_action(), {}, directory)
    return directory


@pytest.fixture
def roots(tmp_path: Path) -> Roots:
    proc, etc = tmp_path / "proc", tmp_path / "etc"
    (proc / "1").mkdir(parents=True)
    (proc / "1" / "mountinfo").write_text(MOUNTINFO)
    etc.mkdir()
    (etc / "passwd").write_text("root:x:0:0::/root:/bin/sh\nalice:x:1000:1000::/:/bin/sh\n")
    return Roots(proc, etc=etc)


@pytest.fixture
def cleaner(tmp_path: Path, roots: Roots) -> BundleCleaner:
    return BundleCleaner(roots, "client-7.corp.example", tmp_path / "state" / "map.json")


def clean(
    cleaner: BundleCleaner, staging: Path, config: CollectionConfig | None = None, **fields: Any
) -> dict[str, Any]:
    return cleaner.clean(staging, {**MANIFEST, **fields}, config or CollectionConfig())


def test_every_text_is_redacted_also_parts_of_an_action_that_was_cut_off(
    cleaner: BundleCleaner, staging: Path
) -> None:
    names = ["mounts.log", "osinfo.log.3", "procstat.jsonl", "without-suffix"]
    for name in names:
        (staging / name).write_text(SECRET)
    told = clean(cleaner, staging)
    assert {(staging / name).read_text() for name in names} == {CLEAN}
    assert told["redacted"] == {"password": len(names)}
    sizes = {entry["name"]: entry["size"] for entry in told["files"]}
    assert sizes == {path.name: path.stat().st_size for path in staging.iterdir()}
    assert {entry["cut_bytes"] for entry in told["files"]} == {0}


def test_evidence_and_captured_packets_stay_byte_for_byte(
    cleaner: BundleCleaner, staging: Path
) -> None:
    names = [*EVIDENCE_FILES, "packets.pcap", "array.npy"]
    for name in names:
        (staging / name).write_text(SECRET * 100)
    (staging / "dmesg.log").write_text("a line\n" * 1_000)
    told = clean(cleaner, staging, CollectionConfig(max_bundle_mb=0.001))
    assert {(staging / name).read_text() for name in names} == {SECRET * 100}
    assert told["redacted"] == {}
    cut = {entry["name"]: entry["cut_bytes"] for entry in told["files"] if entry["cut_bytes"]}
    assert cut == {"dmesg.log": 7_000}


def test_only_packets_and_arrays_are_no_text() -> None:
    assert {Path(action.output).suffix in BINARY for action in QUICK_ACTIONS if action.text} == {
        False
    }
    assert {Path(one.output).suffix in BINARY for one in QUICK_ACTIONS if not one.text} == {True}


def test_the_manifest_is_redacted_wherever_it_repeats_the_host(
    cleaner: BundleCleaner, staging: Path
) -> None:
    command = {"argv": ("mount", "-o", SECRET), "stderr_tail": f"mount: {SECRET}", "exit": 1}
    told = clean(
        cleaner, staging, actions=[{"name": "mounts", "commands": [command]}], reason=SECRET
    )
    (action,) = told["actions"]
    redacted = {"argv": ["mount", "-o", CLEAN], "stderr_tail": f"mount: {CLEAN}", "exit": 1}
    assert action == {"name": "mounts", "commands": [redacted]}
    assert (told["reason"], told["id"]) == (CLEAN, "01")
    assert told["redacted"] == {"password": 3}


def test_secrets_in_a_label_are_gone_from_the_evidence_too(
    cleaner: BundleCleaner, staging: Path
) -> None:
    labels = staging / "labels.jsonl"
    before = [json.loads(line) for line in labels.read_text().splitlines()]
    for example in examples():
        told = clean(cleaner, staging, label=example.line)
        assert told["label"] == example.redacted
        after = [json.loads(line) for line in labels.read_text().splitlines()]
        assert after == [{**record, "label": example.redacted} for record in before]


def test_a_label_without_secrets_leaves_the_evidence_alone(
    cleaner: BundleCleaner, staging: Path
) -> None:
    (staging / "labels.jsonl").write_text('{"label":   "slow upload"}')
    clean(cleaner, staging, label="slow upload")
    assert (staging / "labels.jsonl").read_text() == '{"label":   "slow upload"}'


def test_a_link_is_not_followed(cleaner: BundleCleaner, staging: Path, tmp_path: Path) -> None:
    (tmp_path / "victim").write_text(SECRET)
    (staging / "mounts.log").symlink_to(tmp_path / "victim")
    with pytest.raises(UnsafeFileError):
        clean(cleaner, staging)
    assert (tmp_path / "victim").read_text() == SECRET


def test_who_is_known_is_asked_anew_for_every_bundle(
    cleaner: BundleCleaner, staging: Path, roots: Roots
) -> None:
    config = CollectionConfig(pseudonyms=True)
    (staging / "dmesg.log").write_text("bob and alice")
    clean(cleaner, staging)
    assert (staging / "dmesg.log").read_text() == "bob and alice"
    clean(cleaner, staging, config)
    text = (staging / "dmesg.log").read_text()
    assert text.startswith("bob and user-")
    with (roots.etc / "passwd").open("a") as passwd:
        passwd.write("bob:x:1001:1001::/:/bin/sh\n")
    clean(cleaner, staging, config)
    assert (staging / "dmesg.log").read_text().endswith(text.removeprefix("bob"))
    assert "bob" not in (staging / "dmesg.log").read_text()


def test_no_map_is_made_when_none_is_asked_for(
    cleaner: BundleCleaner, staging: Path, tmp_path: Path
) -> None:
    clean(cleaner, staging)
    assert not (tmp_path / "state").exists()


def test_accounts_of_people_and_of_mounts_are_known(roots: Roots) -> None:
    mounts = parse_mounts(MOUNTINFO)
    assert known_users(roots, mounts) == {"alice", "svc-backup"}
    with (roots.etc / "passwd").open("a") as passwd:
        passwd.write("nobody:x:65534:65534::/:/bin/sh\nbroken\n:x:x:\n")
    assert known_users(roots, ()) == {"alice"}
    (roots.etc / "passwd").unlink()
    assert known_users(roots, mounts) == {"svc-backup"}


def test_hosts_are_known_with_and_without_their_domains() -> None:
    assert known_hosts("client-7.corp.example", parse_mounts(MOUNTINFO)) == {
        "client-7.corp.example",
        "client-7",
        "nas.corp.example",
        "nas",
        "10.9.8.6",
    }


def test_what_an_earlier_cleaning_took_out_counts_too(
    cleaner: BundleCleaner, staging: Path
) -> None:
    small = CollectionConfig(max_bundle_mb=0.001)
    (staging / "mounts.log").write_text(SECRET)
    (staging / "dmesg.log").write_text("a line\n" * 1_000)
    first = clean(cleaner, staging, small)
    assert first["redacted"] == {"password": 1}
    again = cleaner.clean(staging, first, small)
    assert again == first
    (staging / "mounts.log").write_text(SECRET)
    assert cleaner.clean(staging, again, small)["redacted"] == {"password": 2}


def test_hosts_that_only_the_manifest_names_are_known(
    cleaner: BundleCleaner, staging: Path, tmp_path: Path
) -> None:
    config = CollectionConfig(pseudonyms=True)
    (staging / "dmesg.log").write_text("filer answers old-name, FILER.old.example does not")
    told = clean(
        cleaner,
        staging,
        config,
        host="old-name.example",
        reason="archive9 is slow",
        incident={"cause": "filer.old.example"},
        trigger={"place": {"server": "archive9.old.example", "share": "\\\\archive9\\a"}},
    )
    text = json.dumps(told) + (staging / "dmesg.log").read_text()
    assert not [name for name in ("filer", "FILER", "old-name", "archive9") if name in text]
    again = cleaner.clean(staging, told, config)
    assert again == told
    pseudonyms = json.loads((tmp_path / "state" / "map.json").read_text())["pseudonyms"]
    assert not [name for name in pseudonyms.values() if name.startswith("host-")]


def test_lost_connections_do_not_tell_their_server(cleaner: BundleCleaner, staging: Path) -> None:
    events = make_events(20)
    events["tool"][3], events["task"][3] = abi.TOOL_RECONNECT, b"archive9.old.ex"
    events["task"][4] = b"alice"
    write_evidence(make_action(events), no_aftermath(make_action(events)), staging)
    clean(cleaner, staging)
    assert b"archive9" in (staging / "events.npy").read_bytes()
    clean(cleaner, staging, CollectionConfig(pseudonyms=True))
    kept = np.load(staging / "events.npy")
    assert kept["task"].tolist() == [b"backup"] * 3 + [b"", b"alice"] + [b"backup"] * 15
    assert (kept[["pid", "mid", "tool"]] == events[["pid", "mid", "tool"]]).all()
    lines = (staging / "worst_events.jsonl").read_text().splitlines()
    tasks = {record["mid"]: record["task"] for record in map(json.loads, lines)}
    assert (tasks[3], tasks[5], len(tasks)) == ("", "backup", 20)
    assert tasks[4].startswith("user-")
