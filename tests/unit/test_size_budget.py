"""What is cut so that a bundle fits, and what is left of a file that was."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.collection.size_budget import COPY_BYTES, fit, shorten
from agent.storage.durable_file import UnsafeFileError

MARKER = re.compile(rb"\n\.\.\. ([0-9,]+) bytes cut here \.\.\.\n")
NAMES = [f"file{number}" for number in range(12)]
SIZES = st.dictionaries(st.sampled_from(NAMES), st.integers(0, 10_000) | st.integers(0, 9))
CONTENT = st.lists(st.binary(max_size=60), max_size=40).map(b"\n".join) | st.binary(max_size=3000)

SHORTEN_AND_TELL_MEMORY = """
import re, sys
from pathlib import Path
from agent.collection.size_budget import shorten

def peak_kb():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])

before = peak_kb()
shorten(Path(sys.argv[1]), int(sys.argv[2]))
print(peak_kb() - before)
"""


def test_the_largest_are_cut_to_one_size() -> None:
    sizes = {"small": 10, "middle": 50, "large": 200, "huge": 5_000}
    assert fit(sizes, 150, sizes) == {"large": 46, "huge": 46, "middle": 46}
    assert fit(sizes, 200, sizes) == {"large": 70, "huge": 70}
    assert fit(sizes, 5_260, sizes) == {}
    assert fit(sizes, 5_259, sizes) == {"huge": 4_999}
    assert fit({"a": 4, "b": 9, "c": 9}, 9, "abc") == {"a": 3, "b": 3, "c": 3}


def test_evidence_stays_whole_even_when_it_is_too_much() -> None:
    sizes = {"events.npy": 500, "dmesg.log": 100, "empty.log": 0}
    assert fit(sizes, 560, {"dmesg.log", "empty.log"}) == {"dmesg.log": 60}
    assert fit(sizes, 400, {"dmesg.log", "empty.log"}) == {"dmesg.log": 0}
    assert fit(sizes, 400, ()) == {}


@given(SIZES, st.integers(0, 60_000) | st.integers(0, 90), st.sets(st.sampled_from(NAMES)))
def test_all_fit_whenever_they_can_and_nothing_is_cut_in_vain(
    sizes: dict[str, int], budget: int, may_be_cut: set[str]
) -> None:
    limits = fit(sizes, budget, may_be_cut)
    assert limits.keys() <= may_be_cut & sizes.keys()
    assert all(limit < sizes[name] for name, limit in limits.items())
    total = sum(limits.get(name, size) for name, size in sizes.items())
    whole = sum(size for name, size in sizes.items() if name not in may_be_cut)
    assert total <= max(budget, whole)
    if limits:
        (limit,) = set(limits.values())
        untouched = (may_be_cut & sizes.keys()) - limits.keys()
        assert all(sizes[name] <= limit for name in untouched)
        # One byte more for each would be too much.
        assert total + len(limits) > budget


@given(CONTENT, st.integers(0, 3_000))
def test_beginning_and_end_stay_and_the_cut_is_told(content: bytes, limit: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "file"
        path.write_bytes(content)
        cut = shorten(path, limit)
        short = path.read_bytes()
    assert len(short) <= limit
    if len(content) <= limit:
        assert (cut, short) == (0, content)
    elif short:
        halves = [
            (short[: found.start()], short[found.end() :])
            for found in MARKER.finditer(short)
            if int(found[1].replace(b",", b"")) == cut
        ]
        assert any(
            content == head + content[len(head) : len(head) + cut] + tail for head, tail in halves
        )
        assert len(content) == cut + sum(map(len, halves[0]))
    else:
        assert cut == len(content)
        assert limit < len(f"\n... {cut:,} bytes cut here ...\n")


def test_lines_stay_whole_and_about_half_is_of_either_end(tmp_path: Path) -> None:
    lines = [f"line {number:06d} of a log" for number in range(500_000)]
    path = tmp_path / "log"
    path.write_text("\n".join(lines) + "\n")
    size, limit = path.stat().st_size, 3 * COPY_BYTES + 17
    cut = shorten(path, limit)
    short = path.read_text().splitlines()
    mark = short.index(f"... {cut:,} bytes cut here ...")
    head, tail = short[:mark], short[mark + 1 :]
    assert head == lines[: len(head)]
    assert tail == lines[-len(tail) :]
    assert abs(len(head) - len(tail)) <= 2
    assert limit - 100 < path.stat().st_size <= limit
    assert size - cut == sum(len(line) + 1 for line in head + tail) - 1  # a break is the marker's


def test_one_long_line_keeps_its_beginning_and_end(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"a" * 5_000 + b"b" * 5_000 + b"\n")
    cut = shorten(path, 1_000)
    head, tail = path.read_bytes().split(f"\n... {cut:,} bytes cut here ...\n".encode())
    assert set(head) == set(b"a")
    assert set(tail.rstrip(b"\n")) == set(b"b")
    assert min(len(head), len(tail)) > 400


def test_a_gigabyte_is_shortened_in_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "huge"
    path.touch()
    os.truncate(path, 1 << 30)
    result = subprocess.run(
        [sys.executable, "-c", SHORTEN_AND_TELL_MEMORY, path, str(64 << 20)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(result.stdout) * 1024 <= 4 * COPY_BYTES
    assert path.stat().st_size <= 64 << 20


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"x" * 100)
    (tmp_path / "link").symlink_to(tmp_path / "other")
    with pytest.raises(UnsafeFileError):
        shorten(tmp_path / "link", 50)
    assert (tmp_path / "other").stat().st_size == 100
