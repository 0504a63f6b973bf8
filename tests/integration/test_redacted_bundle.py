"""Whole collections of a host full of secrets: none of them is in a bundle, or beside it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from agent.collection.bundle import BundleWriter
from agent.collection.unfinished_bundles import UnfinishedBundles
from tests.bundles import members, sealer
from tests.collection_bench import CONFIG, HOST, CollectionBench, command, several
from tests.evidence import make_action
from tests.redaction_corpus import Traces, examples, look_alikes

CORPUS = "".join(f"{example.line}\n" for example in examples())
PASSWORD = "password=Gone4ever,vers=3.0"
PASSWORD_TRACES = (b"gone4", b"4ever")


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[CollectionBench]:
    bench = CollectionBench(tmp_path)
    yield bench
    bench.journal.close()


def leaks(bench: CollectionBench, told: dict[str, bytes]) -> dict[str, set[bytes]]:
    """What is of a secret, and neither of a look-alike nor of a bundle without any."""
    redacted = json.dumps([example.redacted for example in examples()])
    others = "\n".join([redacted, *look_alikes()]).encode()
    innocent = b"\n".join([others, *bench.told_by(bench.collect()).values()])
    traces = Traces(examples(), innocent)
    found = {name: traces.found_in(data) for name, data in told.items()}
    return {name: left for name, left in found.items() if left}


def test_nothing_of_the_corpus_leaves_the_host(bench: CollectionBench) -> None:
    outcome = bench.collect(
        bench.file("secrets", CORPUS), bench.file("look_alikes", "\n".join(look_alikes()))
    )
    told = bench.told_by(outcome)
    assert leaks(bench, told) == {}
    manifest = json.loads(told["manifest.json"])
    for counts in (manifest["redacted"], json.loads(told["marker"])["redacted"]):
        assert set(counts) == {example.rule for example in examples()}
        assert sum(counts.values()) >= sum(len(example.secrets) for example in examples())
    kept = told["look_alikes.log"].decode().split("\n")
    touched = sum(one != other for one, other in zip(look_alikes(), kept, strict=True))
    assert touched <= len(look_alikes()) // 100


def test_nothing_of_it_is_in_what_a_command_complains(bench: CollectionBench) -> None:
    """Of a long complaint the end is kept, which begins anywhere."""
    source = bench.file("secrets", CORPUS).commands(None)[0].argv[1]  # type: ignore[arg-type]
    lines = range(20, len(examples()), 13)
    actions = [
        command(f"to-{line}", "sh", "-c", f"head -n {line} {source} >&2; exit 3") for line in lines
    ]
    told = bench.told_by(bench.collect(*actions))
    assert leaks(bench, told) == {}
    results = json.loads(told["manifest.json"])["actions"]
    assert {result["status"] for result in results} == {"failed"}
    assert all("[redacted:" in result["stderr_tail"] for result in results)


def test_nothing_of_it_is_in_what_the_bundle_says_of_itself(bench: CollectionBench) -> None:
    """Arguments, also above their outputs, the reason, the label; and the same in the journal."""
    # No argument has a line for itself above its output, as a file of credentials would.
    lines = [
        one.line for one in examples() if "\0" not in one.line and one.rule != "credential-line"
    ]
    outcome = bench.collect(
        several("arguments", *(("echo", "-n", line) for line in lines[::3])),
        command("failing", "ls", f"/no/{PASSWORD}"),
    )
    assert leaks(bench, bench.told_by(outcome)) == {}
    order = make_action()
    trigger = replace(order.trigger, reason=f"captured on demand: {PASSWORD}")
    order = replace(order, label=f"see {PASSWORD}", trigger=trigger)
    outcome = bench.collect(command("failing", "ls", f"/no/{PASSWORD}"), order=order)
    for name, data in bench.told_by(outcome).items():
        assert not [one for one in PASSWORD_TRACES if one in data.lower()], name
    assert "[redacted:password]" in outcome.entries[0]["MESSAGE"]


def test_a_redaction_that_fails_leaves_no_bundle(bench: CollectionBench) -> None:
    """The name is short enough for the file and too long for a temporary beside it."""
    order = make_action()
    trigger = replace(order.trigger, reason=PASSWORD)
    action = replace(bench.file("secrets", CORPUS), output="x" * 250)
    outcome = bench.collect(action, order=replace(order, trigger=trigger))
    assert outcome.bundles == []
    assert (outcome.statistics.failed, outcome.statistics.collected) == (1, 0)
    assert "too long" in outcome.failure
    (entry,) = outcome.entries
    assert entry["AOD_EVENT"] == "collection_failed"
    assert "Gone4ever" not in str(entry)
    assert [path for path in bench.spool.root.rglob("*") if path.is_file()] == []
    assert list(bench.spool.staging.iterdir()) == []


def test_packets_are_not_looked_into(bench: CollectionBench) -> None:
    packets = b"\xd4\xc3\xb2\xa1" + PASSWORD.encode() + bytes(range(256))
    source = bench.file("netcapture", packets)
    action = replace(source, output="packets.pcap", text=False)
    (bundle,) = bench.collect(action).bundles
    assert members(bundle)["packets.pcap"] == packets


def test_what_a_killed_run_left_is_redacted_before_it_is_finished(bench: CollectionBench) -> None:
    order = make_action()
    trigger = replace(order.trigger, reason=PASSWORD)
    order = replace(order, trigger=trigger, label=PASSWORD)
    writer = BundleWriter(bench.spool, HOST, sealer(bench.spool))
    staging = writer.open_staging(order)
    writer.draft(order, [bench.file("osinfo", ""), bench.file("secrets", "")])
    parts = [f"osinfo.log.{number}" for number in range(3)]
    for name in ("secrets.log", *parts):
        (staging / name).write_text(f"{CORPUS}{PASSWORD}\n")
    unfinished = UnfinishedBundles(bench.spool, bench.surroundings(), lambda: CONFIG)
    assert [one.fate for one in unfinished.recover()] == ["finished"]
    (bundle,) = bench.spool.finished()
    told = {**members(bundle), "marker": bundle.done.read_bytes()}
    assert {"secrets.log", *parts} <= set(told)
    assert leaks(bench, told) == {}
    for name, data in told.items():
        assert not [one for one in PASSWORD_TRACES if one in data.lower()], name
