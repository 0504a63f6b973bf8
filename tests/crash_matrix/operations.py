"""Tells what each traced call does to the files of a victim."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.crash_matrix.tracing import WRITES, Call

_OPENING = ("open", "openat", "creat")
_RANDOM = re.compile(r"\.[0-9a-f]{8}(?=\.tmp$)|#\d+$")
_KINDS = {
    **dict.fromkeys(WRITES, "write"),
    "rename": "rename",
    "renameat": "rename",
    "renameat2": "rename",
    "link": "link",
    "linkat": "link",
    "unlink": "unlink",
    "mkdir": "mkdir",
    "mkdirat": "mkdir",
    "rmdir": "rmdir",
    "truncate": "truncate",
    "ftruncate": "truncate",
    "chmod": "chmod",
    "fchmod": "chmod",
    "fchmodat": "chmod",
}


@dataclass(frozen=True)
class Operation:
    """A call on files of one directory; ``names`` are relative to it.

    ``kind``: create, open (without any right to write), write, fsync, fsync directory, rename,
    link, unlink, mkdir, rmdir, truncate, chmod, or the call's own name.
    """

    kind: str
    names: tuple[str, ...]
    call: Call

    def __str__(self) -> str:
        """The same in every run."""
        return f"{self.kind} {' to '.join(_RANDOM.sub('', name) for name in self.names)}"


def operations(calls: Iterable[Call], below: Path) -> list[Operation]:
    """What ``calls`` do to the directory ``below`` and what is in it, failed attempts included."""
    found = []
    directories: set[Path] = set()
    for call in calls:
        if call.name in _OPENING and call.has_flag("O_DIRECTORY"):
            directories.update(call.paths)
        inside = [path for path in call.paths if path.is_relative_to(below)]
        if inside:
            names = tuple(str(path.relative_to(below)) for path in inside)
            found.append(Operation(_kind(call, directories), names, call))
    return found


def _kind(call: Call, directories: set[Path]) -> str:
    if call.name in _OPENING:
        writes = ("O_WRONLY", "O_RDWR", "O_CREAT", "O_TMPFILE")
        return "create" if call.name == "creat" or call.has_flag(*writes) else "open"
    if call.name in ("fsync", "fdatasync"):
        return "fsync directory" if directories.issuperset(call.paths) else "fsync"
    if call.name == "unlinkat":
        return "rmdir" if call.has_flag("AT_REMOVEDIR") else "unlink"
    return _KINDS.get(call.name, call.name)
