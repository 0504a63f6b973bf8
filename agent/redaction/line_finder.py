"""Finds the secrets that stand in one line, without looking at most lines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

from agent.redaction.rule import Rule
from agent.redaction.span import Span, secret_span

_NO_LETTER = bytes(c if ord("a") <= c <= ord("z") else ord(" ") for c in range(256))


class Finder(Protocol):
    """Something that knows what is to be replaced in a piece of text."""

    def spans(self, text: bytes, start: int, end: int) -> Iterable[Span]:
        """The spans in ``text[start:end]``; what lies before ``start`` is context."""


class LineFinder:
    """The rules for one line. A rule runs only on lines with one of its hints, and a hint is
    searched only where the letters in it stand in some word: a piece has few different words."""

    def __init__(self, rules: tuple[Rule, ...]) -> None:
        self._ranked = tuple(enumerate(rules))
        self._letters = {hint: _letters(hint) for rule in rules for hint in rule.hints}

    def spans(self, text: bytes, start: int, end: int) -> Iterator[Span]:
        """The secrets in ``text[start:end]``."""
        lowered = text.lower()
        words = b" ".join(set(lowered[start:end].translate(_NO_LETTER).split()))
        for rank, rule in self._ranked:
            hints = [hint for hint in rule.hints if self._letters[hint] in words]
            searched = text if rule.minds_case else lowered
            for line_start, line_end in lines_with(hints, searched, start, end):
                for match in rule.pattern.finditer(text, line_start, line_end):
                    yield secret_span(match, rule.name, rank)


def _letters(hint: bytes) -> bytes:
    """The longest run of letters in ``hint``, in lower case."""
    return max(hint.lower().translate(_NO_LETTER).split(), key=len, default=b"")


def lines_with(hints: Iterable[bytes], text: bytes, start: int, end: int) -> list[tuple[int, int]]:
    """Start and end of the lines in ``text[start:end]`` that hold one of ``hints``."""
    lines: dict[int, int] = {}
    for hint in hints:
        place = text.find(hint, start, end)
        while place >= 0:
            line_end = text.find(b"\n", place, end)
            line_end = end if line_end < 0 else line_end
            lines[max(start, text.rfind(b"\n", start, place) + 1)] = line_end
            place = text.find(hint, line_end, end)
    return sorted(lines.items())
