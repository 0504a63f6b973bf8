"""The lines that let hosts into a relay, and what becomes of them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Iterable, Sequence

_LINE = re.compile(
    r'restrict,command="[^"]* --host (?P<host>[^ "]+)[^"]*" (?P<key>\S+ \S+)'
    r"(?: (?P<comment>\S+))?(?: ansible:(?P<client>\S+))?$"
)


@dataclass(frozen=True)
class Entry:
    """One line: ``client`` is the inventory's name of who got it by Ansible, None of one that was
    made by hand; ``host`` and ``key`` are empty in a line that `aod-relay` did not make."""

    text: str
    host: str = ""
    key: str = ""
    client: str | None = None


@dataclass
class Merged:
    """The lines as they are to be; ``refused``: why a client has none; ``unknown``: who has one,
    and is not in the inventory."""

    entries: list[Entry]
    refused: dict[str, str] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)


def parse(line: str) -> Entry:
    """A line of the file, whatever it is."""
    match = _LINE.match(line)
    if match is None:
        return Entry(line)
    return Entry(line, match["host"], match["key"], match["client"])


def merge(
    present: Sequence[Entry],
    wanted: Sequence[Entry],
    absent: Iterable[str],
    known: set[str] | None,
    purge: bool,
) -> Merged:
    """Each wanted line takes the place of its client's, or comes last.

    A host's folder, and a key, are for one client: who has either in common with another is
    refused, and the others are not held up. ``known`` None: nobody counts as unknown.
    """
    gone = set(absent)
    strangers = {
        entry.client
        for entry in present
        if entry.client and known is not None and entry.client not in known | gone
    }
    if purge:
        gone |= strangers
    kept = [entry for entry in present if entry.client is None or entry.client not in gone]
    merged = Merged([], unknown=sorted(strangers - gone))
    fresh: dict[str, Entry] = {}
    for entry in wanted:
        reason = _conflict(entry, [*kept, *fresh.values()], strangers)
        if reason:
            merged.refused[str(entry.client)] = reason
        else:
            fresh[str(entry.client)] = entry
    for entry in kept:
        heir = _heir(entry, fresh, strangers)
        if heir is None:
            merged.entries.append(entry)
        elif heir not in merged.entries:
            merged.entries.append(heir)
    merged.entries += [entry for entry in fresh.values() if entry not in merged.entries]
    return merged


def _heir(entry: Entry, fresh: dict[str, Entry], strangers: set[str]) -> Entry | None:
    """The wanted line that replaces this one."""
    if entry.client in fresh:
        return fresh[str(entry.client)]
    if not _is_free(entry, strangers):
        return None
    return next((one for one in fresh.values() if one.key == entry.key), None)


def _conflict(entry: Entry, others: Iterable[Entry], strangers: set[str]) -> str:
    """Why the line cannot stand beside the others; empty when it can."""
    for other in others:
        if other.client == entry.client:
            continue
        if _is_free(other, strangers):
            if other.host == entry.host and other.key != entry.key:
                return (
                    f"the folder {other.host} is let to another key, by a line "
                    f"{'of ' + other.client if other.client else 'made by hand'}: remove that "
                    "line, or give this host another shipper_relay_host_name"
                )
        elif other.host == entry.host:
            return (
                f"{other.client} is called {other.host}, too, and has that folder: give one of "
                "them another shipper_relay_host_name"
            )
        elif other.key == entry.key:
            return (
                f"its key is that of {other.client}: one machine was copied from the other. Remove "
                "/etc/aod/relay here, and run again"
            )
    return ""


def _is_free(entry: Entry, strangers: set[str]) -> bool:
    """Whether whoever has the line's key may take its place: a host says itself what it is called,
    so that a name alone gives nobody another's folder."""
    return entry.client is None or entry.client in strangers
