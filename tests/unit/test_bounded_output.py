"""What is kept of an output that may be too large, and what happens when the disk is."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agent.collection.bounded_output import LINE_BYTES, MARKER_BYTES, BoundedOutput, cut_marker
from agent.redaction.redactor import Redactor
from tests.redaction_corpus import Traces, examples
from tests.unit.test_redaction_blocks import BODY, KIND, encrypted, key_example
from tests.unit.test_redaction_blocks import example as block_example

MARKER = re.compile(rb"\n\.\.\. ([0-9,]+) bytes cut here \.\.\.\n")
CHUNKS = st.lists(
    st.binary(max_size=300) | st.sampled_from([b"\n", b"a line of a log\n", b"x" * 200]),
    max_size=30,
)

WRITE_WITH_SMALL_FILES = """
import os, resource, sys
from pathlib import Path
from agent.collection.bounded_output import BoundedOutput

limit, amount = map(int, sys.argv[2:])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
descriptors = os.listdir("/proc/self/fd")
try:
    with BoundedOutput(Path(sys.argv[1]), 40_000) as output:
        output.write(b"x" * amount)
        step = "finish"
        output.finish()
except OSError as error:
    print(error.errno, globals().get("step", "write"), os.listdir("/proc/self/fd") == descriptors)
"""


def kept(chunks: Iterable[bytes], max_bytes: int, keep_tail: bool = True) -> tuple[bytes, bool]:
    """The file's content, and whether it was cut."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "output"
        with BoundedOutput(path, max_bytes, keep_tail) as output:
            for chunk in chunks:
                output.write(chunk)
            size = output.finish()
        assert list(Path(directory).iterdir()) == [path]
        content = path.read_bytes()
    assert size == len(content)
    return content, output.cut


@given(CHUNKS, st.integers(0, 5_000) | st.integers(0, 300))
@example([b"one\n" * 40, b"word" * 40, b"\nend\n"], 300)
def test_beginning_and_end_are_kept_and_the_number_between_them_is_true(
    chunks: list[bytes], max_bytes: int
) -> None:
    whole = b"".join(chunks)
    content, cut = kept(chunks, max_bytes)
    assert len(content) <= max_bytes
    if not cut:
        assert content == whole
        return
    assert len(whole) > max_bytes - MARKER_BYTES
    if max_bytes < 2 * MARKER_BYTES:
        assert whole.startswith(content)
        return
    assert any(
        whole.startswith(content[: found.start()])
        and whole.endswith(content[found.end() :])
        and len(whole) == len(content) - len(found[0]) + int(found[1].replace(b",", b""))
        for found in MARKER.finditer(content)
    )


@given(st.integers(1_000, 60_000), st.integers(1, 5_000))
def test_of_lines_only_whole_ones_are_kept_and_about_half_of_either_end(
    max_bytes: int, size: int
) -> None:
    lines = [f"line {number:06d} of a log" for number in range(3_000)]
    whole = "".join(f"{line}\n" for line in lines).encode()
    content, cut = kept(
        (whole[place : place + size] for place in range(0, len(whole), size)), max_bytes
    )
    assert cut
    head, _, tail = MARKER.split(content)
    kept_head, kept_tail = head.decode().split("\n"), tail.decode().splitlines()
    assert kept_head == lines[: len(kept_head)]
    assert kept_tail == lines[-len(kept_tail) :]
    assert len(content) > max_bytes - MARKER_BYTES - 2 * len("line 000000 of a log\n")
    assert 0 <= len(head) - len(tail) <= MARKER_BYTES + 2 * len("line 000000 of a log\n")


def test_a_very_long_line_is_cut_between_words() -> None:
    words = b" ".join(b"<%05d>" % number for number in range(90_000))
    content, _ = kept([words], 4 * LINE_BYTES)
    head, _, tail = MARKER.split(content)
    assert head.endswith(b">")
    assert tail.startswith(b"<")
    assert len(content) > 4 * LINE_BYTES - 100


@given(CHUNKS, st.integers(0, 2_000))
def test_without_the_end_the_first_bytes_are_kept(chunks: list[bytes], max_bytes: int) -> None:
    whole = b"".join(chunks)
    content, cut = kept(chunks, max_bytes, keep_tail=False)
    assert content == whole[:max_bytes]
    assert cut is (len(whole) > max_bytes)


def test_it_is_full_when_nothing_more_would_be_kept(tmp_path: Path) -> None:
    with BoundedOutput(tmp_path / "binary", 10, keep_tail=False) as output:
        output.write(b"x" * 10)
        assert not output.full, "whether that was all is not known"
        output.write(b"x")
        assert output.full
    with BoundedOutput(tmp_path / "text", 1_000) as output:
        output.write(b"x" * 5_000)
        assert not output.full, "of a text the end is wanted"


# Of one that lacks an end already, nothing tells any more once the other one is cut off.
WHOLE_KEYS = [
    key_example("RSA " + KIND),
    key_example(f"PGP {KIND} BLOCK", before="Nov 25 12:00:00 host app[1]: ", width=76),
    encrypted(),
    block_example("putty-key", ["Private-Lines: 25", *BODY, "Private-MAC: 0011aabb"], BODY),
]
CORPUS = [*examples(), *WHOLE_KEYS]
SECRETS = "".join(f"{one.line}\n" for one in CORPUS).encode()
TRACES = Traces(CORPUS)


@given(st.integers(1_500, len(SECRETS) + 100), st.sampled_from([1 << 20, 4_096, 61]))
def test_a_cut_in_the_midst_of_a_secret_leaks_nothing_of_it(max_bytes: int, size: int) -> None:
    pieces = [SECRETS[place : place + size] for place in range(0, len(SECRETS), size)]
    content, _ = kept(pieces, max_bytes)
    redacted = Redactor().stream().feed(content, last=True)
    assert TRACES.found_in(redacted) == set()


@pytest.mark.parametrize(
    ("limit", "amount", "step"),
    [(10_000, 15_000, "write"), (15_000, 38_000, "write"), (25_000, 38_000, "finish")],
    ids=["beginning", "end", "joining"],
)
def test_a_disk_that_takes_no_more_is_an_error_and_no_descriptor_is_left(
    tmp_path: Path, limit: int, amount: int, step: str
) -> None:
    result = subprocess.run(
        [sys.executable, "-c", WRITE_WITH_SMALL_FILES, tmp_path / "out", str(limit), str(amount)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert result.stdout == f"27 {step} True\n"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_the_longest_marker_has_room() -> None:
    assert len(cut_marker(10**18)) <= MARKER_BYTES
