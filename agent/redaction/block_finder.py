"""Finds the secrets that go over lines, such as private keys."""

from __future__ import annotations

import re
from collections.abc import Iterator

from agent.redaction.rule import Block
from agent.redaction.span import Span, secret_span

# A whole line of a key, as it stands before a key's end. Sums of files are hexadecimal.
_KEY_LINE = re.compile(
    rb"(?:^|[\s:>|\"'])(?![0-9a-fA-F]+[\s\"',]*$)[A-Za-z0-9+/]{48,}={0,2}[\s\"',]*$",
    re.MULTILINE,
)
# A key of 16,384 bits has 200 lines; between two of them may stand some of other programs.
_MOST_LINES = 400
_MOST_LINES_BETWEEN = 20
_SHORT_BODY = 24
_BEFORE_ALL_RULES = -1


class _Hints:
    """Where the blocks' hints stand in a text. For each of them the text is searched once."""

    def __init__(self, blocks: tuple[Block, ...], lowered: bytes) -> None:
        self._lowered = lowered
        self._ahead = {block.hint: lowered.find(block.hint) for block in blocks}

    def next_from(self, place: int) -> int:
        """The first place of a hint at or after ``place``, -1 without one. Ask in rising order."""
        for hint, at in self._ahead.items():
            if 0 <= at < place:
                self._ahead[hint] = self._lowered.find(hint, place)
        return min((at for at in self._ahead.values() if at >= 0), default=-1)


class BlockFinder:
    """Remembers from one piece of a text to the next in which block it is. Pieces are whole lines.

    Not for two texts at the same time: each takes a finder of its own.
    """

    def __init__(self, blocks: tuple[Block, ...]) -> None:
        self._blocks = blocks
        self._open: Block | None = None
        self._lines_since_body = 0

    def spans(self, text: bytes, start: int, end: int) -> Iterator[Span]:
        """The secrets in the lines of ``text[start:end]``."""
        hints = _Hints(self._blocks, text[start:end].lower())
        place = start
        while place < end:
            if self._open is None:
                hint = hints.next_from(place - start)
                if hint < 0:
                    return
                place = text.rfind(b"\n", start, start + hint) + 1 or start
            line_end = text.find(b"\n", place, end)
            line_end = end if line_end < 0 else line_end
            yield from self._look_at_line(text, start, place, line_end)
            place = line_end + 1

    def held_back(self, text: bytes, start: int, end: int) -> int:
        """The place, at most ``end``, up to which ``text`` can be looked at before more is known:
        lines of a key whose beginning was cut off are told by its end."""
        reaching = [block for block in self._blocks if block.found_from_end]
        return min((_first_line(block, text, start, end) for block in reaching), default=end)

    def _look_at_line(self, text: bytes, start: int, line: int, line_end: int) -> Iterator[Span]:
        beginning = self._beginning(text, line, line_end)
        if beginning:
            self._open, self._lines_since_body = beginning, 0
        elif self._open is None:
            yield from self._lines_before(text, start, line, line_end)
        elif self._open.ends.search(text, line, line_end):
            self._open = None
        else:
            yield from self._look_at_body(self._open, text, line, line_end)

    def _look_at_body(self, block: Block, text: bytes, line: int, line_end: int) -> Iterator[Span]:
        self._lines_since_body += 1
        for span in _body_span(block, text, line, line_end):
            if span.end - span.start >= _SHORT_BODY:
                self._lines_since_body = 0
            yield span
        if self._lines_since_body > _MOST_LINES_BETWEEN:
            self._open = None

    def _beginning(self, text: bytes, line: int, line_end: int) -> Block | None:
        for block in self._blocks:
            begin = block.begins.search(text, line, line_end)
            if begin and not block.ends.search(text, begin.end(), line_end):
                return block
        return None

    def _lines_before(self, text: bytes, start: int, line: int, line_end: int) -> Iterator[Span]:
        """The lines of a key before its end, which stands in this line."""
        for block in self._blocks:
            ends = block.found_from_end and block.ends.search(text, line, line_end)
            if not ends or block.begins.search(text, line, line_end):
                continue
            before, place = line, _first_line(block, text, start, line)
            while place < before:
                line_end = text.find(b"\n", place)
                yield from _body_span(block, text, place, line_end)
                place = line_end + 1


def _first_line(block: Block, text: bytes, start: int, end: int) -> int:
    """Where those lines begin that would be a key's if its end stood at ``end``: one that looks
    like a body, however short, and whole lines of a key before it."""
    place, pattern = end, block.body
    for _ in range(_MOST_LINES):
        line = text.rfind(b"\n", start, max(start, place - 1)) + 1 or start
        if line >= place or not pattern.search(text, line, place - 1):
            break
        place, pattern = line, _KEY_LINE
    return place


def _body_span(block: Block, text: bytes, line: int, line_end: int) -> Iterator[Span]:
    match = block.body.search(text, line, line_end)
    if match:
        yield secret_span(match, block.name, _BEFORE_ALL_RULES)
