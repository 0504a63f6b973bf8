"""Places in a text and what stands there afterwards."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import reduce
from typing import NamedTuple

# What an earlier redaction left, which is no secret.
MARK = re.compile(rb"\[redacted:[a-z-]{1,40}\]|\b(?:user|host|addr)-[0-9a-f]{10}\b")
# The frame of a private key stays: it tells where lines begin and end that are the key's.
FRAME = re.compile(rb"----[ -]?(?:BEGIN|END) [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?[ -]?----")
_LONGEST_MARK = 80
_BEGINNINGS = (b"[redacted:", b"user-", b"host-", b"addr-")


class Span(NamedTuple):
    """``text[start:end]`` becomes ``replacement`` and counts as ``name``.

    ``reach_start`` and ``reach_end`` hold all that was needed to know it. Where spans overlap, the
    one with the lowest ``rank`` says what becomes of all they cover.
    """

    start: int
    end: int
    name: str
    replacement: bytes
    rank: int
    reach_start: int
    reach_end: int


def secret_span(match: re.Match[bytes], name: str, rank: int) -> Span:
    """The span of the secret that ``match`` found: its matched group."""
    start, end = match.span(match.lastindex or 0)
    mark = b"[redacted:" + name.encode() + b"]"
    return Span(start, end, name, mark, rank, match.start(), match.end())


def without_marks(text: bytes, spans: Iterable[Span]) -> list[Span]:
    """The spans that hold no part of a mark: what was redacted before stays as it is."""
    spans = list(spans)
    if not spans or not any(beginning in text for beginning in _BEGINNINGS):
        return spans
    return [span for span in spans if not _touches_mark(text, span)]


def outside_frames(text: bytes, spans: list[Span]) -> list[Span]:
    """The spans, but only what of them is not the frame of a private key."""
    if not spans or b"PRIVATE KEY" not in text:
        return spans
    return [part for span in spans for part in _parts_outside(text, span)]


def _parts_outside(text: bytes, span: Span) -> Iterator[Span]:
    place, low = span.start, max(0, span.start - _LONGEST_MARK)
    for frame in FRAME.finditer(text, low, span.end + _LONGEST_MARK):
        if frame.end() <= place or frame.start() >= span.end:
            continue
        if frame.start() > place:
            yield span._replace(start=place, end=frame.start())
        place = frame.end()
    if place < span.end:
        yield span._replace(start=place)


def _touches_mark(text: bytes, span: Span) -> bool:
    low, high = max(0, span.start - _LONGEST_MARK), span.end + _LONGEST_MARK
    return any(
        mark.start() < span.end and span.start < mark.end()
        for mark in MARK.finditer(text, low, high)
    )


def merged(spans: Iterable[Span]) -> list[Span]:
    """The spans in order, those that overlap made one."""
    return _joined(spans, lambda span: (span.start, span.end))


def reaches(spans: Iterable[Span]) -> list[tuple[int, int]]:
    """The stretches of text, in order, that cannot be cut without losing a span."""
    joined = _joined(spans, lambda span: (span.reach_start, span.reach_end))
    return [(span.reach_start, span.reach_end) for span in joined]


def replaced(text: bytes, start: int, end: int, spans: Iterable[Span]) -> bytes:
    """``text[start:end]`` with the ordered, disjoint ``spans`` replaced."""
    pieces, place = [], start
    for span in spans:
        pieces += [text[place : span.start], span.replacement]
        place = span.end
    return b"".join([*pieces, text[place:end]])


def counted(spans: Iterable[Span]) -> Counter[str]:
    """How many spans there are by name."""
    return Counter(span.name for span in spans)


def _joined(spans: Iterable[Span], extent: Callable[[Span], tuple[int, int]]) -> list[Span]:
    groups: list[list[Span]] = []
    last = -1
    for span in sorted(spans, key=extent):
        start, end = extent(span)
        if groups and start < last:
            groups[-1].append(span)
        else:
            groups.append([span])
        last = max(last, end)
    return [reduce(_both, group) for group in groups]


def _both(one: Span, other: Span) -> Span:
    first = min(one, other, key=lambda span: span.rank)
    return Span(
        min(one.start, other.start),
        max(one.end, other.end),
        first.name,
        first.replacement,
        first.rank,
        min(one.reach_start, other.reach_start),
        max(one.reach_end, other.reach_end),
    )
