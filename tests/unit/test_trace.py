from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import zstandard

from agent.events.trace import TraceError, create_trace, read_trace
from tests.evidence import make_events


def test_what_was_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "t.zst"
    events = make_events(1_000)
    with create_trace(path, {"kernel": "6.1"}) as writer:
        writer.write(events[:300])
        writer.write(events[300:300])
        writer.write(events[300:], lost=7)
    trace = read_trace(path)
    assert np.array_equal(trace.events, events)
    assert (trace.meta["kernel"], trace.lost) == ("6.1", 7)
    assert path.stat().st_mode & 0o777 == 0o640


def test_a_recording_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), create_trace(tmp_path / "t.zst", {}) as writer:
        writer.write(make_events(5))
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_a_cut_trace_is_good_up_to_its_last_whole_block(tmp_path: Path) -> None:
    path, cut = tmp_path / "t.zst", tmp_path / "cut.zst"
    events = make_events(50)
    with create_trace(path, {}) as writer:
        writer.write(events[:20])
        writer.write(events[20:])
    plain = zstandard.ZstdDecompressor().decompress(path.read_bytes(), 1 << 20)
    cut.write_bytes(zstandard.ZstdCompressor().compress(plain[:-1]))
    assert np.array_equal(read_trace(cut).events, events[:20])


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not zstd at all",
        zstandard.ZstdCompressor().compress(b"[1, 2]\n"),
        zstandard.ZstdCompressor().compress(b'{"format": "other"}\n'),
        zstandard.ZstdCompressor().compress(
            json.dumps({"format": "aod-trace", "version": 99, "event_bytes": 64}).encode() + b"\n"
        ),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "t.zst"
    path.write_bytes(content)
    with pytest.raises(TraceError, match=r"t\.zst"):
        read_trace(path)
