"""No name of the host leaves it, and a name has one pseudonym in all bundles."""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from agent.collection.surroundings import Surroundings
from tests.collection_bench import CONFIG, HOST, MOUNTINFO, CollectionBench

PSEUDONYMS = replace(CONFIG, pseudonyms=True)

# What the host, which `CollectionBench` makes up, logs, and names that must not leave it.
LOG = (
    "Nov 25 12:00:00 client-7 kernel: CIFS: VFS: \\\\NAS.corp.example has not responded\n"
    "Nov 25 12:00:01 Client-7.Corp.Example sshd[1]: Accepted publickey for alice from 192.168.7.9\n"
    "Nov 25 12:00:02 client-7 app[2]: svc-backup reads /home/alice/x from nas over fe80::1234:1\n"
    "Nov 25 12:00:03 client-7 dhcp[3]: lease to 52:54:00:12:34:56 for Alice\n"
)
NAMES = (
    *(b"client-7", b"corp.example", b"nas", b"alice", b"svc-backup"),
    *(b"10.9.8.7", b"192.168.7.9", b"fe80::1234:1", b"52:54:00:12:34:56"),
)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[CollectionBench]:
    bench = CollectionBench(tmp_path)
    yield bench
    bench.journal.close()


def test_no_name_of_the_host_leaves_it_and_pseudonyms_are_stable(bench: CollectionBench) -> None:
    seen = []
    for _ in range(2):
        outcome = bench.collect(bench.file("journalctl", LOG + MOUNTINFO), config=PSEUDONYMS)
        told = bench.told_by(outcome)
        del told["journal"]  # it stays
        # Of two letters more or less any word can be part.
        leaked = {
            (name, found[0])
            for name, data in told.items()
            for one in NAMES
            for found in re.finditer(rb"(?<![a-z0-9])" + one + rb"(?![a-z0-9])", data.lower())
        }
        assert leaked == set()
        manifest = json.loads(told["manifest.json"])
        assert set(manifest["redacted"]) == {f"pseudonym:{one}" for one in ("user", "host", "addr")}
        seen.append((told["journalctl.log"], manifest["host"]))
    assert seen[0] == seen[1]
    assert stat.S_IMODE(bench.map_file.stat().st_mode) == 0o600
    names = json.loads(bench.map_file.read_text())["pseudonyms"]
    assert names[seen[0][1]] == HOST.name
    assert {"alice", "svc-backup", "nas.corp.example", "10.9.8.7"} <= set(names.values())


def test_the_map_lies_outside_of_the_spool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    config = (Path(__file__).parents[2] / "config" / "config.yaml").read_text()
    spool = re.search(r"^aod_output_dir: (\S+)$", config, re.MULTILINE)
    assert spool
    assert not Surroundings().pseudonym_map.is_relative_to(spool[1])


@pytest.mark.parametrize("damage", ["", "{}", '{"key": "00", "pseudonyms": {}}'])
def test_with_a_damaged_map_there_is_no_bundle_and_it_says_what_to_do(
    bench: CollectionBench, damage: str
) -> None:
    bench.map_file.parent.mkdir()
    bench.map_file.write_text(damage)
    outcome = bench.collect(bench.file("journalctl", LOG), config=PSEUDONYMS)
    assert outcome.bundles == []
    assert outcome.statistics.failed == 1
    (entry,) = outcome.entries
    for told in (outcome.failure, entry["AOD_REASON"]):
        assert str(bench.map_file) in told
        assert "move it away" in told
    assert bench.map_file.read_text() == damage
    bench.map_file.unlink()
    assert len(bench.collect(bench.file("journalctl", LOG), config=PSEUDONYMS).bundles) == 1
