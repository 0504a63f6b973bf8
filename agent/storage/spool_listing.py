"""What lies in a directory of the spool: plain files alone, whatever else is put there."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from agent.storage.ulid import is_ulid

NAMES_TOLD = 10


def plain_files(directory: Path) -> Iterator[str]:
    """Names of the plain files; links, directories and pipes are none. A vanished directory is
    an empty one; other errors are raised."""
    try:
        with os.scandir(directory) as entries:
            yield from (entry.name for entry in entries if entry.is_file(follow_symlinks=False))
    except FileNotFoundError:
        return


def is_plain_file(path: Path) -> bool:
    """Whether there is one; a link, a directory or a pipe is none. Raises OSError."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except FileNotFoundError:
        return False


def ids_by_suffix(directory: Path) -> dict[str, set[str]]:
    """Bundle ids of the plain files called ``<id><suffix>``, by suffix (``.done``)."""
    found: dict[str, set[str]] = {}
    for name in plain_files(directory):
        bundle_id, dot, suffix = name.partition(".")
        if is_ulid(bundle_id):
            found.setdefault(dot + suffix, set()).add(bundle_id)
    return found


def some_of(names: Sequence[str]) -> str:
    """``names`` for a message: a few of them, as ASCII without anything a terminal obeys."""
    told = ", ".join(ascii(name) for name in names[:NAMES_TOLD])
    more = len(names) - NAMES_TOLD
    return f"{told} and {more:,} more" if more > 0 else told
