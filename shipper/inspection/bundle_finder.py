"""Finds bundles by what people have of them: an id, its beginning, or the name of a file."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from agent.storage import durable_file
from agent.storage.spool_listing import ids_by_suffix
from agent.storage.ulid import is_ulid
from shipper.spools.sources import Source

# Beside the suffixes of a bundle's files: its staging directory.
STAGING = "staging"
SHORTEST_PREFIX = 6

_PREFIX = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]*")


class NoReferenceError(ValueError):
    """A text that is neither an id nor the beginning of one nor a file's name; says why."""


@dataclass(frozen=True)
class FoundBundle:
    """A bundle, or what is left of it: the suffixes of its files, and `STAGING`."""

    id: str
    source: Source
    parts: frozenset[str]

    def document(self, suffix: str) -> dict[str, Any]:
        """The JSON object in one of its files; empty when there is none that can be read."""
        return read_document(self.source.spool.path(self.id, suffix))


def read_document(path: Path) -> dict[str, Any]:
    """The JSON object in a plain file; empty when there is none that can be read."""
    try:
        document = json.loads(durable_file.read_plain(path))
    except (OSError, ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def parse_reference(text: str) -> str:
    """The id, or its beginning, that ``text`` names. Raises NoReferenceError."""
    name = PurePosixPath(text).name
    if is_ulid(name[:26]):
        return name[:26]
    start = name.upper()
    if not _PREFIX.fullmatch(start) or len(start) > 26:
        raise NoReferenceError("neither a bundle's id nor the name of one of its files")
    if len(start) < SHORTEST_PREFIX:
        raise NoReferenceError(f"too short: give {SHORTEST_PREFIX} characters of the id, or more")
    return start


def find_bundles(sources: Iterable[Source], start: str) -> list[FoundBundle]:
    """All whose id begins with ``start``, by id. Raises OSError when a spool cannot be listed."""
    return sorted(
        (
            FoundBundle(bundle_id, source, frozenset(parts))
            for source in sources
            for bundle_id, parts in _parts_by_id(source, start).items()
        ),
        key=lambda found: found.id,
    )


def _parts_by_id(source: Source, start: str) -> dict[str, set[str]]:
    parts: dict[str, set[str]] = {}
    for suffix, ids in ids_by_suffix(source.spool.batches).items():
        for bundle_id in ids:
            if bundle_id.startswith(start):
                parts.setdefault(bundle_id, set()).add(suffix)
    # Closed to everybody but the agent, and an inbox has none.
    with contextlib.suppress(PermissionError, FileNotFoundError):
        for directory in source.spool.staging_directories():
            if directory.name.startswith(start):
                parts.setdefault(directory.name, set()).add(STAGING)
    return parts
