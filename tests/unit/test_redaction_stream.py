"""Neither pieces, nor bytes that are no text, nor an earlier pass change what is redacted."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.redaction.redactor import Redactor
from agent.redaction.stream import Window
from tests.redaction_corpus import examples, look_alikes
from tests.unit.test_redaction_blocks import BLOCK_EXAMPLES

LINES = [
    *(example.line.encode() for example in examples() if len(example.line) < 200),
    *(example.line.encode() for example in BLOCK_EXAMPLES),
    *(line.encode() for line in look_alikes()),
]
FRAGMENT = st.one_of(st.sampled_from(LINES), st.binary(max_size=40))
JOINTS = [b"\n", b"\n", b"\n", b" ", b"\0", b"\r\n"]


def texts(joints: list[bytes]) -> st.SearchStrategy[bytes]:
    parts = st.lists(st.tuples(FRAGMENT, st.sampled_from(joints)), max_size=40)
    return parts.map(lambda pairs: b"".join(part + joint for part, joint in pairs))


def redacted(redactor: Redactor, text: bytes, sizes: list[int]) -> bytes:
    """``text`` through a stream in pieces of ``sizes``, over and over."""
    stream, output, place, turn = redactor.stream(), [], 0, 0
    while place < len(text):
        size = sizes[turn % len(sizes)]
        output.append(stream.feed(text[place : place + size]))
        place, turn = place + size, turn + 1
    return b"".join([*output, stream.feed(b"", last=True)])


def at_once(redactor: Redactor, text: bytes) -> bytes:
    return redactor.stream().feed(text, last=True)


@given(texts([*JOINTS, b""]), st.lists(st.integers(1, 700), min_size=1, max_size=5))
def test_pieces_of_any_size_give_the_same(text: bytes, sizes: list[int]) -> None:
    assert redacted(Redactor(), text, sizes) == at_once(Redactor(), text)


@given(texts(JOINTS))
def test_what_is_redacted_stays_as_it_is(text: bytes) -> None:
    """Without a gap a mark ends a word that it did not end before: then more may be found."""
    once = at_once(Redactor(), text)
    stream = Redactor().stream()
    assert stream.feed(once, last=True) == once
    assert not stream.counts


@given(
    st.lists(st.sampled_from([line for line in LINES if len(line) < 200 and b"\n" not in line])),
    st.integers(1, 300),
)
def test_a_long_line_is_cut_without_losing_a_secret(lines: list[bytes], piece: int) -> None:
    text = b" ; ".join(lines)
    window = Window(piece=piece, overlap=4_096, context=256)
    assert redacted(Redactor(window=window), text, [piece]) == at_once(Redactor(), text)


@given(st.binary(max_size=2_000))
def test_bytes_that_are_no_text_stay(garbage: bytes) -> None:
    secret = b"\npassword=Gone4ever,vers=3.0\n"
    output = at_once(Redactor(), garbage + secret + garbage)
    assert b"Gone4ever" not in output
    assert b",vers=3.0\n" in output


@pytest.mark.parametrize("unit", [b"word ", b"x", b"password "])
def test_a_huge_line_takes_little_memory(unit: bytes) -> None:
    redactor = Redactor(window=Window(piece=1 << 18))
    stream, total, tail = redactor.stream(), 0, b""
    filler = unit * ((1 << 18) // len(unit))
    tracemalloc.start()
    for number in range(40):
        data = filler + (b" password=Gone4ever;x=1 " if number == 20 else b"")
        output = stream.feed(data)
        total += len(output)
        assert b"Gone4ever" not in tail + output
        tail = output[-100:]
    total += len(stream.feed(b"", last=True))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert stream.counts["password"] == 1
    assert total == 40 * len(filler) + len(b" password=[redacted:password];x=1 ")
    assert peak < 16 << 20


@pytest.mark.parametrize("piece", range(100, 115))
def test_a_part_of_a_line_knows_what_stood_before_it(piece: int) -> None:
    text = b"bypass=abcdef;" * 100
    assert redacted(Redactor(window=Window(piece, overlap=50)), text, [piece]) == text


def test_a_secret_longer_than_the_overlap_goes_to_its_end() -> None:
    window = Window(piece=1_000, overlap=1_000)
    text = b"a " * 800 + b"password=" + b"S" * 50_000 + b" vers=3.0" + b" b" * 5_000
    output = redacted(Redactor(window=window), text, [700])
    assert output == text.replace(b"S" * 50_000, b"[redacted:password]")


@pytest.mark.parametrize("text", ["", "\n", "\n\n", "no end", "end\n", "\r\n", "\udcff\udcfe"])
def test_small_texts_stay(text: str) -> None:
    assert Redactor().redact_text(text) == (text, {})


UNITS = (b"password", b"mysql -", b"eyJ", b"//a:", b"user=", b"::a", b"echo ", b"-U", b"a", b"a:")


@pytest.mark.parametrize("unit", UNITS)
def test_a_line_that_nearly_matches_everywhere_comes_to_an_end(unit: bytes) -> None:
    line = unit * ((1 << 18) // len(unit)) + b"%@|(0x</ PRIVATE KEY audit="
    assert at_once(Redactor(), line + b" password=Gone4ever").endswith(b"=[redacted:password]")
