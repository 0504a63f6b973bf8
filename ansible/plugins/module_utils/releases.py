"""The releases below a prefix, each in a directory of its version."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

COMPLETE = ".complete"
BEGUN = ".incomplete"
_LINKS = ("current", "previous")


def is_complete(release: Path) -> bool:
    """Whether its installation came to an end, and nothing has begun to take it away again."""
    return (release / COMPLETE).is_file() and not (release / BEGUN).exists()


def linked_version(prefix: Path, link: str) -> str:
    """Where ``current`` or ``previous`` points to; empty without one. The tree may be gone."""
    path = prefix / link
    return Path(os.readlink(path)).name if path.is_symlink() else ""


def superfluous(prefix: Path, version: str, keep: int) -> list[Path]:
    """Complete releases beyond the newest ``keep`` installed ones, and what is left of others;
    none for 0.

    Neither ``version`` nor what a link points to is among them. Whoever installs holds the lock of
    ``prefix``, so that under it nothing is half that will become whole.
    """
    if not keep or not prefix.is_dir():
        return []
    kept = {version, *(linked_version(prefix, link) for link in _LINKS)}
    found = [tree for tree in prefix.iterdir() if not tree.is_symlink()]
    half = [tree for tree in found if (tree / BEGUN).exists() and tree.name not in kept]
    trees = [tree for tree in found if is_complete(tree)]
    others = [tree for tree in trees if tree.name not in kept]
    others.sort(key=lambda tree: (tree / COMPLETE).stat().st_mtime_ns, reverse=True)
    return half + others[max(0, keep - (len(trees) - len(others))) :]


def remove_release(tree: Path) -> None:
    """Killed in the middle, it leaves a tree that counts for nothing, and that can be installed
    anew."""
    mark = tree / BEGUN
    mark.touch()
    (tree / COMPLETE).unlink(missing_ok=True)
    empty(tree, but=mark)
    mark.unlink()
    tree.rmdir()


def empty(directory: Path, but: Path | None = None) -> None:
    """Remove all that is in it."""
    for path in directory.iterdir():
        if path == but:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
