"""Redacts one text that comes in pieces of any size, in bounded memory."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

from agent.redaction.block_finder import BlockFinder
from agent.redaction.line_finder import Finder
from agent.redaction.span import (
    Span,
    counted,
    merged,
    outside_frames,
    reaches,
    replaced,
    without_marks,
)

_SECRETS_END = re.compile(rb"[\s\x00\"']")


@dataclass(frozen=True)
class Window:
    """Sizes in bytes. A line longer than ``piece + overlap`` is looked at in parts; secrets in it
    are found wherever a part ends, if what tells them is no longer than ``overlap``; of longer
    ones the rest goes up to the next blank or quote. ``context`` is what patterns look back on.
    """

    piece: int = 256 << 10
    overlap: int = 64 << 10
    context: int = 256


class Stream:
    """One text on its way. ``counts`` says how many secrets were replaced, by rule.

    The output does not depend on how the text was cut into pieces.
    """

    def __init__(self, finders: tuple[Finder, ...], blocks: BlockFinder, window: Window) -> None:
        self.counts: Counter[str] = Counter()
        self._finders = finders
        self._blocks = blocks
        self._window = window
        self._text = b""
        self._start = 0
        self._in_long_secret = False

    def feed(self, data: bytes, last: bool = False) -> bytes:
        """Take in ``data``; returns what is certain by now. With ``last`` that is all the rest."""
        if self._in_long_secret:
            data = self._after_secret(data)
        kept_from = max(0, self._start - self._window.context)
        self._text = self._text[kept_from:] + data
        self._start -= kept_from
        if last:
            return self._lines(len(self._text))
        whole = self._text.rfind(b"\n", self._start) + 1
        certain = self._blocks.held_back(self._text, self._start, whole) if whole else 0
        if certain > self._start:
            return self._lines(certain)
        if len(self._text) - self._start < self._window.piece + self._window.overlap:
            return b""
        return self._lines(whole) if whole else self._part_of_line()

    def _lines(self, end: int) -> bytes:
        spans = [*self._found(end), *self._blocks.spans(self._text, self._start, end)]
        return self._redacted(end, spans)

    def _part_of_line(self) -> bytes:
        known = len(self._text)
        end, spans = known - self._window.overlap, self._found(known)
        for start, reach_end in reaches(spans):
            if start < end:
                end = max(end, reach_end)
        self._in_long_secret = any(span.end == end == known for span in spans)
        return self._redacted(end, [span for span in spans if span.reach_start < end])

    def _found(self, end: int) -> list[Span]:
        return [
            span for finder in self._finders for span in finder.spans(self._text, self._start, end)
        ]

    def _redacted(self, end: int, spans: list[Span]) -> bytes:
        spans = merged(outside_frames(self._text, without_marks(self._text, spans)))
        self.counts.update(counted(spans))
        output = replaced(self._text, self._start, end, spans)
        self._start = end
        return output

    def _after_secret(self, data: bytes) -> bytes:
        end = _SECRETS_END.search(data)
        self._in_long_secret = end is None
        return data[end.start() :] if end else b""
