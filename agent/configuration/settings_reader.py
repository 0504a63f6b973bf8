"""Typed reading of a YAML file: every wrong value becomes a fault with file, line, key and cure.

A reader notes a fault and hands back a stand-in, so that one pass finds everything; `finish`
raises what was found. Nothing read may be used before `finish` has returned.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path, PurePosixPath

from agent.configuration.settings_document import (
    KINDS,
    ConfigError,
    Document,
    Entry,
    Fault,
    Value,
    dotted,
    quoted,
)
from agent.configuration.yaml_file import read_document

__all__ = ["ConfigError", "Fault", "Section", "read_settings"]

_FEW = 20
_ANYTHING = re.compile(".+")


def read_settings(path: Path) -> Section:
    """The top level of ``path``; raises `ConfigError` when the file cannot be read or parsed."""
    document = read_document(path)
    return Section(document, Entry(1, document.root), "", [])


class Section:
    """The keys of one mapping. A key that is absent or null takes its default.

    A default of None marks a key that must be there.
    """

    def __init__(self, document: Document, entry: Entry, key: str, opened: list[Section]) -> None:
        self.key = key
        self.line = entry.line
        self._document = document
        self._usable = isinstance(entry.value, dict)
        self._entries = entry.value if isinstance(entry.value, dict) else {}
        self._known: list[str] = []
        self._opened = opened
        opened.append(self)

    def __contains__(self, name: str) -> bool:
        return self._entry(name) is not None

    @property
    def clean(self) -> bool:
        """Whether nothing below this section has been found wrong so far."""
        own, below = self.key, (f"{self.key}.", f"{self.key}[")
        return not any(
            fault.key == own or fault.key.startswith(below) for fault in self._document.faults
        )

    def finish(self, unknown_keys_are_faults: bool = False) -> tuple[Fault, ...]:
        """Called once, on the top level: the warnings; raises `ConfigError` with all faults.

        Keys that no reader asked for are warned about, or are faults.
        """
        note = self._document.fault if unknown_keys_are_faults else self._document.warn
        for section in self._opened:
            for name, line in section._unknown():
                key = dotted(section.key, name)
                note(line, key, "is not a key known here", _suggestion(name, section._known))
        if self._document.faults:
            raise ConfigError(tuple(sorted(self._document.faults, key=_order)))
        return tuple(sorted(self._document.warnings, key=_order))

    def fault(self, name: str, problem: str, cure: str) -> None:
        """Note that the value of ``name`` is wrong."""
        self._document.fault(self._line(name), dotted(self.key, name), problem, cure)

    def warn(self, name: str, problem: str, cure: str) -> None:
        """Note that the value of ``name`` hardly does what was meant."""
        self._document.warn(self._line(name), dotted(self.key, name), problem, cure)

    def fault_here(self, problem: str, cure: str) -> None:
        """Note that this section as a whole is wrong."""
        self._document.fault(self.line, self.key, problem, cure)

    def skip_rest(self) -> None:
        """Take every key of this section for known: what belongs here cannot be told."""
        self._known.extend(self._entries)

    def integer(self, name: str, default: int | None = None, *, minimum: int, maximum: int) -> int:
        """A whole number from ``minimum`` to ``maximum``."""
        value = self._within(name, default, (int,), minimum, maximum)
        return value if isinstance(value, int) else minimum

    def number(
        self, name: str, default: float | None = None, *, minimum: float, maximum: float
    ) -> float:
        """A finite number from ``minimum`` to ``maximum``."""
        return float(self._within(name, default, (int, float), minimum, maximum))

    def boolean(self, name: str, default: bool | None = None) -> bool:
        """``true`` or ``false``."""
        return self._scalar(name, default, (bool,), "true or false") is True

    def text(
        self,
        name: str,
        default: str | None = None,
        *,
        pattern: re.Pattern[str] | None = None,
        wanted: str = "text, in quotes",
    ) -> str:
        """Printable text; all of it matches ``pattern``, which ``wanted`` puts into words.

        Empty text is refused, unless the default is empty too.
        """
        value = self._scalar(name, default, (str,), wanted)
        if not isinstance(value, str):
            return ""
        if value == default:
            return value
        if not value.isprintable() or not (pattern or _ANYTHING).fullmatch(value):
            self.fault(name, f"{quoted(value)} cannot be used", f"Use {wanted}.")
        return value

    def choice(self, name: str, options: Collection[str], default: str | None = None) -> str:
        """One of ``options``; the file may write it in any case."""
        wanted = f"one of {', '.join(options)}"
        value = self._scalar(name, default, (str,), wanted)
        if isinstance(value, str):
            word = value.strip().lower()
            if word in options:
                return word
            article = "an" if name[0] in "aeiou" else "a"
            self.fault(name, f"{quoted(value)} is not {article} {name}", f"Use {wanted}.")
        return next(iter(options))

    def absolute_path(self, name: str, default: str | None = None) -> Path:
        """A path from the root, without ``..``; it need not exist."""
        value = self.text(name, default, wanted="an absolute path such as /var/log/aod")
        path = PurePosixPath(value)
        if value and (not path.is_absolute() or ".." in path.parts or len(path.parts) < 2):
            self.fault(
                name,
                f"{quoted(value)} is not an absolute path below /",
                "Use a path such as /var/log/aod, without `..`.",
            )
        return Path(value)

    def name(self, name: str, options: Collection[str], noun: str) -> str:
        """One of ``options`` as it stands there; empty, with a fault noted, when it is not."""
        value = self._scalar(name, None, (str,), f"the name of an {noun}")
        if not isinstance(value, str) or value in options:
            return value if isinstance(value, str) else ""
        self.fault(name, f"{quoted(value)} is not a known {noun}", _suggestion(value, options))
        return ""

    def names(self, name: str, options: Collection[str], noun: str) -> tuple[str, ...]:
        """A list of names out of ``options``, each once, in their order; empty when absent.

        An unknown name is a fault, a repeated one a warning.
        """
        found: dict[str, None] = {}
        for key, entry in self._list(name, "a list, one `- name` a line"):
            value = entry.value
            if not isinstance(value, str) or value not in options:
                problem = f"{entry.shown} is not a known {noun}"
                self._document.fault(entry.line, key, problem, _suggestion(entry.text, options))
            elif value in found:
                problem = f"{quoted(value)} stands twice"
                self._document.warn(entry.line, key, problem, "Remove one of them.")
            else:
                found[value] = None
        return tuple(found)

    def section(self, name: str) -> Section:
        """The mapping below ``name``; an empty one when it is absent."""
        entry = self._entry(name) or Entry(self._line(name), {})
        return self._open(entry, dotted(self.key, name))

    def key_names(self) -> tuple[str, ...]:
        """The keys in the file, in its order: for a mapping whose keys are the user's own."""
        return tuple(self._entries)

    def sections(self, name: str) -> dict[str, Section]:
        """The mappings below ``name``, by their names."""
        parent = self.section(name)
        return {child: parent.section(child) for child in parent._entries}

    def section_list(self, name: str, example: str) -> list[Section]:
        """The list of mappings below ``name``; ``example`` shows in messages how one is written."""
        return [self._open(entry, key, example) for key, entry in self._list(name, example)]

    def walk(self) -> Iterator[tuple[str, str, Entry]]:
        """(dotted key, own name, entry) of everything in the file, whether known or not."""
        return self._document.walk()

    def _open(self, entry: Entry, key: str, example: str = "`key: value` lines") -> Section:
        if not isinstance(entry.value, dict):
            problem = f"{entry.shown} is {entry.kind}, not a section"
            self._document.fault(entry.line, key, problem, f"Use {example}.")
        return Section(self._document, entry, key, self._opened)

    def _entry(self, name: str) -> Entry | None:
        if name not in self._known:
            self._known.append(name)
        entry = self._entries.get(name)
        return None if entry is None or entry.value is None else entry

    def _line(self, name: str) -> int:
        entry = self._entries.get(name)
        return entry.line if entry else self.line

    def _unknown(self) -> list[tuple[str, int]]:
        return [(n, entry.line) for n, entry in self._entries.items() if n not in self._known]

    def _scalar(self, name: str, default: Value, kinds: tuple[type, ...], wanted: str) -> Value:
        """The value when it is of one of ``kinds``, else None with a fault noted."""
        entry = self._entry(name)
        if entry is None:
            if default is None and self._usable:
                self.fault(name, "is missing", f"Add it: {wanted}.")
            return default
        if type(entry.value) in kinds:
            return entry.value
        problem = f"{entry.shown} is {entry.kind}, not {KINDS[kinds[-1]]}"
        self.fault(name, problem, f"Use {wanted}.")
        return None

    def _within(
        self,
        name: str,
        default: float | None,
        kinds: tuple[type, ...],
        minimum: float,
        maximum: float,
    ) -> float:
        wanted = f"{KINDS[kinds[-1]]} from {minimum:,} to {maximum:,}".replace(",", "_")
        value = self._scalar(name, default, kinds, wanted)
        if not isinstance(value, (int, float)):
            return minimum
        if minimum <= value <= maximum:
            return value
        size = "too small" if value < minimum else "too large" if value > maximum else "no number"
        self.fault(name, f"{self._entries[name].shown} is {size}", f"Use {wanted}.")
        return minimum

    def _list(self, name: str, example: str) -> Iterable[tuple[str, Entry]]:
        entry = self._entry(name)
        if entry is None:
            return []
        if not isinstance(entry.value, list):
            problem = f"{entry.shown} is {entry.kind}, not a list"
            self.fault(name, problem, f"Use {example}.")
            return []
        key = dotted(self.key, name)
        return [(f"{key}[{index}]", item) for index, item in enumerate(entry.value)]


def _suggestion(word: str, options: Collection[str]) -> str:
    by_fold = {option.lower(): option for option in options}
    close = difflib.get_close_matches(word.lower()[:100], by_fold, n=1)
    if close:
        return f'Did you mean "{by_fold[close[0]]}"?'
    if len(options) <= _FEW:
        return f"Use one of {', '.join(options)}." if options else "Remove it."
    return (
        f"There are {len(options)}, from {min(options)} to {max(options)}; see the documentation."
    )


def _order(fault: Fault) -> tuple[int, str]:
    return (fault.line or 0, fault.key)
