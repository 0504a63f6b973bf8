"""A bundle whose files are too much together: the large ones lose their middles."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

from agent.storage.free_space import MEGABYTE
from tests.bundles import members
from tests.collection_bench import CONFIG, CollectionBench
from tests.evidence import make_action, make_events

MARKER = re.compile(rb"\n\.\.\. ([0-9,]+) bytes cut here \.\.\.\n")


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[CollectionBench]:
    bench = CollectionBench(tmp_path)
    yield bench
    bench.journal.close()


def test_a_bundle_is_cut_to_its_budget(bench: CollectionBench) -> None:
    """Large outputs lose their middles at line breaks; small ones and evidence stay whole."""
    chance = random.Random(20_261_125)  # noqa: S311
    large = {f"large{n}": noise(chance, 1_500_000 + 200_000 * n) for n in range(3)}
    small = {f"small{n}": noise(chance, 2_000 * n) for n in range(5)}
    events = make_events(3_000)
    outcome = bench.collect(
        *(bench.file(name, content) for name, content in {**large, **small}.items()),
        config=replace(CONFIG, max_bundle_mb=2),
        order=make_action(events),
    )
    (bundle,) = outcome.bundles
    files = members(bundle)
    entries = {entry["name"]: entry for entry in json.loads(files["manifest.json"])["files"]}
    assert {name: entry["size"] for name, entry in entries.items()} == {
        name: len(data) for name, data in files.items() if name != "manifest.json"
    }
    assert 1.9 * MEGABYTE < sum(entry["size"] for entry in entries.values()) <= 2 * MEGABYTE
    assert bundle.size < 2 * MEGABYTE
    for name, content in large.items():
        head, told, tail = MARKER.split(files[f"{name}.log"])
        cut = int(told.replace(b",", b""))
        assert entries[f"{name}.log"]["cut_bytes"] == cut
        assert content.startswith(head + b"\n")
        assert content.endswith(b"\n" + tail)
        assert len(head) + cut + len(tail) == len(content)
    for name, content in small.items():
        assert files[f"{name}.log"] == content
    whole = np.load(BytesIO(files["events.npy"]))
    assert (whole == events).all()
    assert {name for name, entry in entries.items() if entry["cut_bytes"]} == {
        f"{name}.log" for name in large
    }


def noise(chance: random.Random, size: int) -> bytes:
    """Lines that compress little, and in which no rule sees a token."""
    lines = (chance.randbytes(30).hex().encode() + b"\n" for _ in range(size // 61))
    return b"".join(lines)
