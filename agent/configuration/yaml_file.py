"""Reads a YAML file into a `Document`: bytes, text, nodes, entries; each failure with its cure."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import yaml

from agent.configuration.settings_document import (
    ConfigError,
    Document,
    Entry,
    Value,
    dotted,
    printable,
)

MAX_BYTES = 256 * 1024

_TAG = "tag:yaml.org,2002:"
_MERGE = f"{_TAG}merge"
_TEXT_TAGS = {f"{_TAG}str", f"{_TAG}timestamp", f"{_TAG}value", _MERGE}


def read_document(path: Path) -> Document:
    """Read ``path``; raises `ConfigError` when there is no usable mapping in it."""
    document = Document(printable(str(path), 200))
    try:
        document.root = _Tree(document).members(_compose(_decode(_read(path))), "")
    except _UnusableError as error:
        document.fault(error.line, "", error.problem, error.cure)
    except RecursionError:
        document.fault(None, "", "is nested too deeply", "Follow the shipped example.")
    if document.faults:
        raise ConfigError(tuple(document.faults))
    return document


class _UnusableError(Exception):
    """The file cannot be read to its end."""

    def __init__(self, problem: str, cure: str, line: int | None = None) -> None:
        super().__init__(problem)
        self.problem, self.cure, self.line = problem, cure, line


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise _UnusableError(
            "no such file", "Check the path, or copy the shipped example."
        ) from None
    except IsADirectoryError:
        raise _UnusableError("is a directory, not a file", "Name the file in it.") from None
    except PermissionError:
        raise _UnusableError(
            f"may not be read by user id {os.geteuid()}",
            "Run as a user who may, or change the file's owner, group or mode.",
        ) from None
    except OSError as error:
        raise _UnusableError(
            f"cannot be read ({error.strerror})", "Check the path and the disk."
        ) from None
    if len(data) > MAX_BYTES:
        raise _UnusableError(
            f"is larger than {MAX_BYTES // 1024} KiB", "Name a configuration file."
        )
    return data


def _decode(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _UnusableError(
            "is not UTF-8 text", "Save the file as UTF-8.", data.count(b"\n", 0, error.start) + 1
        ) from None


def _compose(text: str) -> yaml.MappingNode:
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        column = f" near column {mark.column + 1}" if mark else ""
        raise _UnusableError(
            f"is not valid YAML: {_plain_problem(error)}",
            f"Check indentation, quotes and colons{column}.",
            mark.line + 1 if mark else None,
        ) from None
    except yaml.reader.ReaderError as error:
        raise _UnusableError(
            "has a character that YAML does not allow",
            "Remove the control character.",
            text.count("\n", 0, int(error.position)) + 1,
        ) from None
    except (ValueError, OverflowError):  # PyYAML: an escape beyond Unicode, an absurd %YAML
        raise _UnusableError(
            "is not valid YAML: a number out of range", "Check the escapes."
        ) from None
    if node is None:
        raise _UnusableError("is empty", "Start from the shipped example.")
    if not isinstance(node, yaml.MappingNode):
        raise _UnusableError(
            "has no keys at the top level", "Write `key: value` lines.", node.start_mark.line + 1
        )
    return node


def _plain_problem(error: yaml.MarkedYAMLError) -> str:
    """The parser's words without what stands in the file: it could be a secret."""
    words = error.problem or error.context or "syntax error"
    return printable(re.sub(r"(alias|anchor|handle) .*", r"\1", words, flags=re.DOTALL), 120)


class _Tree:
    """Turns nodes into entries: each node once, so that aliases cost nothing."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._entries: dict[yaml.Node, Entry] = {}
        self._open: set[yaml.Node] = set()

    def entry(self, node: yaml.Node, key: str) -> Entry:
        if node in self._open:
            self._fault(node, key, "an alias that contains itself", "Write the value out.")
            return Entry(node.start_mark.line + 1, None)
        if node not in self._entries:
            self._open.add(node)
            self._entries[node] = self._convert(node, key)
            self._open.remove(node)
        return self._entries[node]

    def _convert(self, node: yaml.Node, key: str) -> Entry:
        line = node.start_mark.line + 1
        if isinstance(node, yaml.MappingNode) and node.tag == f"{_TAG}map":
            return Entry(line, self.members(node, key))
        if isinstance(node, yaml.SequenceNode) and node.tag == f"{_TAG}seq":
            items = (self.entry(item, f"{key}[{i}]") for i, item in enumerate(node.value))
            return Entry(line, list(items))
        if isinstance(node, yaml.ScalarNode):
            return Entry(line, self._scalar(node, key), node.value)
        self._fault(node, key, "has a tag that is not allowed", "Remove the `!...`, or quote it.")
        return Entry(line, None)

    def members(self, node: yaml.MappingNode, key: str) -> dict[str, Entry]:
        own: dict[str, Entry] = {}
        merged: dict[str, Entry] = {}
        for name_node, value_node in node.value:
            if name_node.tag == _MERGE:
                for name, entry in self._merge(value_node, key):
                    merged.setdefault(name, entry)
                continue
            if not isinstance(name_node, yaml.ScalarNode):
                self._fault(name_node, key, "a key is a list or mapping", "Use text as key.")
                continue
            name, line = name_node.value, name_node.start_mark.line + 1
            if name in own:
                self._document.fault(
                    line,
                    dotted(key, name),
                    f"stands twice, first on line {own[name].line}",
                    "Keep one of them.",
                )
                continue
            found = self.entry(value_node, dotted(key, name))
            own[name] = Entry(line, found.value, found.text)
        return {**merged, **own}

    def _merge(self, node: yaml.Node, key: str) -> Iterator[tuple[str, Entry]]:
        """The members that ``<<`` brings in: of one mapping, or of a list of them."""
        sources = node.value if isinstance(node, yaml.SequenceNode) else [node]
        for source in sources:
            value = self.entry(source, key).value
            if isinstance(value, dict):
                yield from value.items()
            else:
                self._fault(
                    source, key, "<< merges what is no mapping", "Give it a mapping's alias."
                )

    def _scalar(self, node: yaml.ScalarNode, key: str) -> Value:
        constructor = yaml.constructor.SafeConstructor()
        try:
            if node.tag == f"{_TAG}int":
                return int(constructor.construct_yaml_int(node))
            if node.tag == f"{_TAG}float":
                return float(constructor.construct_yaml_float(node))
            if node.tag == f"{_TAG}bool":
                return bool(constructor.construct_yaml_bool(node))
        except (ValueError, KeyError, IndexError, OverflowError):
            self._fault(node, key, "a number or truth value that cannot be read", "Rewrite it.")
            return None
        if node.tag == f"{_TAG}null":
            return None
        if node.tag not in _TEXT_TAGS:
            self._fault(
                node, key, "has a tag that is not allowed", "Remove the `!...`, or quote it."
            )
        return str(node.value)

    def _fault(self, node: yaml.Node, key: str, problem: str, cure: str) -> None:
        self._document.fault(node.start_mark.line + 1, key, problem, cure)
