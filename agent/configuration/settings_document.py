"""A settings file as a tree that knows its lines, and the one error for what is wrong in it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

Value: TypeAlias = str | int | float | bool | list["Entry"] | dict[str, "Entry"] | None

KINDS: dict[type, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    list: "a list",
    dict: "a section",
    type(None): "empty",
}


@dataclass(frozen=True)
class Fault:
    """One thing wrong (or, among the warnings, doubtful): where, what, and the cure.

    ``line`` counts from 1 and is None when the file as a whole is meant; ``key`` is dotted and
    empty at the top level.
    """

    file: str
    line: int | None
    key: str
    problem: str
    cure: str

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return ": ".join(part for part in (place, self.key, f"{self.problem}. {self.cure}") if part)


class ConfigError(Exception):
    """The configuration cannot be used; the message has one line for each fault."""

    def __init__(self, faults: tuple[Fault, ...]) -> None:
        super().__init__("\n".join(str(fault) for fault in faults))
        self.faults = faults


@dataclass(frozen=True)
class Entry:
    """One value: its line in the file (a mapping's member has its key's), and a scalar's text."""

    line: int
    value: Value
    text: str = ""

    @property
    def kind(self) -> str:
        """What it is, in words."""
        return KINDS[type(self.value)]

    @property
    def shown(self) -> str:
        """The value as it stands in the file; lists and sections are not repeated."""
        if isinstance(self.value, str):
            return quoted(self.value)
        return printable(self.text) if isinstance(self.value, (int, float)) else "this"


@dataclass
class Document:
    """The tree of ``file`` and what was found wrong in it so far."""

    file: str
    root: dict[str, Entry] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    warnings: list[Fault] = field(default_factory=list)

    def fault(self, line: int | None, key: str, problem: str, cure: str) -> None:
        """Note what makes the file unusable; reading goes on, so that all faults are found."""
        self.faults.append(Fault(self.file, line, key, problem, cure))

    def warn(self, line: int, key: str, problem: str, cure: str) -> None:
        """Note what can be used, but hardly as it was meant."""
        self.warnings.append(Fault(self.file, line, key, problem, cure))

    def walk(self) -> Iterator[tuple[str, str, Entry]]:
        """(dotted key, own name, entry) of every value; what aliases share comes once."""
        seen: set[int] = set()
        waiting = [(dotted("", name), name, entry) for name, entry in self.root.items()]
        while waiting:
            key, name, entry = waiting.pop()
            yield key, name, entry
            if not isinstance(entry.value, (dict, list)) or id(entry.value) in seen:
                continue
            seen.add(id(entry.value))
            if isinstance(entry.value, dict):
                waiting += [(dotted(key, n), n, child) for n, child in entry.value.items()]
            else:
                waiting += [(f"{key}[{i}]", name, item) for i, item in enumerate(entry.value)]


def printable(text: str, limit: int = 60) -> str:
    """``text`` cut to ``limit`` characters, with everything a terminal could obey escaped."""
    cut = text if len(text) <= limit else text[: limit - 1] + "…"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in cut)


def quoted(text: str) -> str:
    """`printable` in quotation marks."""
    return f'"{printable(text)}"'


def dotted(key: str, name: str) -> str:
    """The key of the member ``name`` of the section ``key``."""
    return f"{key}.{printable(name)}" if key else printable(name)
