"""The corpus of secrets and look-alikes in tests/data/redaction."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

DATA = Path(__file__).parent / "data" / "redaction"

# Put together here, so that no file of the repository looks like a real token.
_PREFIX = re.compile(
    r"\{(PEM|eyJ|AKIA|ASIA|ghp_|github_pat_|xoxb-|AIza|ya29\.|glpat-|sk_live_|sk-|hvs\.|"
    r"AGE-SECRET-KEY-)\}"
)
_SECRET = re.compile("⟦(.*?)⟧")


class Example(NamedTuple):
    """A line with secrets, and what is to be left of it."""

    rule: str
    line: str
    secrets: list[str]
    redacted: str


def examples() -> list[Example]:
    """The lines of secrets.tsv: the rule, then the line, whose secrets stand in ⟦⟧."""
    return [
        _example(*line.split("\t", 1))
        for line in (DATA / "secrets.tsv").read_text(encoding="utf-8").splitlines()
    ]


def look_alikes() -> list[str]:
    """The lines that hold no secret."""
    return (DATA / "look_alikes.txt").read_text(encoding="utf-8").splitlines()


class Traces:
    """Finds what is left of the secrets of ``examples``, also parts of them.

    What their lines say apart from secrets, or ``innocent`` says, is no trace.
    """

    LENGTH = 7

    def __init__(self, examples: Iterable[Example], innocent: bytes = b"") -> None:
        examples = list(examples)
        told = b"\n".join([innocent, *(example.redacted.encode() for example in examples)])
        self._secret = {
            piece
            for example in examples
            for secret in example.secrets
            for piece in self._pieces(secret.encode().lower())
        } - self._pieces(told.lower())
        self._short = {
            secret.encode()
            for example in examples
            for secret in example.secrets
            if len(secret) < self.LENGTH and secret.encode() not in told
        }

    def found_in(self, data: bytes) -> set[bytes]:
        """What there is of the secrets in ``data``."""
        found = self._secret & self._pieces(data.lower())
        return found | {secret for secret in self._short if secret in data}

    def _pieces(self, data: bytes) -> set[bytes]:
        ends = range(self.LENGTH, len(data) + 1)
        return {data[end - self.LENGTH : end] for end in ends}


def _example(rule: str, marked: str) -> Example:
    marked = _PREFIX.sub(lambda match: "-----" if match[1] == "PEM" else match[1], marked)
    marked = marked.replace("␀", "\0")
    line = marked.replace("⟦", "").replace("⟧", "")
    return Example(rule, line, _SECRET.findall(marked), _SECRET.sub(f"[redacted:{rule}]", marked))
