"""The corpus of secrets and look-alikes in tests/data/redaction."""

from __future__ import annotations

import re
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


def _example(rule: str, marked: str) -> Example:
    marked = _PREFIX.sub(lambda match: "-----" if match[1] == "PEM" else match[1], marked)
    marked = marked.replace("␀", "\0")
    line = marked.replace("⟦", "").replace("⟧", "")
    return Example(rule, line, _SECRET.findall(marked), _SECRET.sub(f"[redacted:{rule}]", marked))
