"""The releases below a prefix, each in a directory of its version."""

from __future__ import annotations

import os
from pathlib import Path

COMPLETE = ".complete"
_LINKS = ("current", "previous")


def is_complete(release: Path) -> bool:
    """Whether its installation came to an end."""
    return (release / COMPLETE).is_file()


def linked_version(prefix: Path, link: str) -> str:
    """Where ``current`` or ``previous`` points to; empty without one. The tree may be gone."""
    path = prefix / link
    return Path(os.readlink(path)).name if path.is_symlink() else ""


def superfluous(prefix: Path, version: str, keep: int) -> list[Path]:
    """Complete releases beyond the newest ``keep`` installed ones; none for 0.

    Neither ``version`` nor what a link points to is among them.
    """
    if not keep or not prefix.is_dir():
        return []
    kept = {version, *(linked_version(prefix, link) for link in _LINKS)}
    trees = [tree for tree in prefix.iterdir() if not tree.is_symlink() and is_complete(tree)]
    others = [tree for tree in trees if tree.name not in kept]
    others.sort(key=lambda tree: (tree / COMPLETE).stat().st_mtime_ns, reverse=True)
    return others[max(0, keep - (len(trees) - len(others))) :]
