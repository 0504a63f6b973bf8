"""The opposite of an activation: units and files go."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Mapping

from ansible_collections.aod.fleet.plugins.module_utils import units
from ansible_collections.aod.fleet.plugins.module_utils.journal import made_directories
from ansible_collections.aod.fleet.plugins.module_utils.live_file import remove
from ansible_collections.aod.fleet.plugins.module_utils.releases import empty


def deactivate(parameters: Mapping[str, Any], check_mode: bool) -> dict[str, Any]:
    """Stop and disable the units; remove files, trees, and the directories that are empty then,
    those that activations made among them.

    Doing it twice does no harm. A file system that is mounted at a tree is emptied, and stays.

    Raises OSError and `CommandError`.
    """
    paths = [Path(one["dest"]) for one in parameters["files"]]
    files = [path for path in paths if path.is_symlink() or path.exists()]
    trees = [Path(one) for one in parameters["trees"] if _has_tree(Path(one))]
    states = {unit: units.state_of(unit) for unit in parameters["units"]}
    directories = [Path(one) for one in parameters["directories"]]
    directories += reversed(made_directories(Path(parameters["prefix"])))
    alive = [unit for unit, state in states.items() if state.enabled or state.active]
    if not check_mode:
        for unit in alive:
            units.retire(unit)
        for path in files:
            units.retire_unit_of(path)
            remove(path)
        if files:
            units.reload_manager()
        for tree in trees:
            _remove_tree(tree)
    emptied = []
    for directory in dict.fromkeys(directories):
        if _is_empty(directory):
            emptied.append(directory)
            if not check_mode:
                directory.rmdir()
    return {
        "changed": bool(files or trees or emptied or alive),
        "removed": [str(path) for path in [*files, *trees, *emptied]],
        "stopped": alive,
    }


def _is_empty(directory: Path) -> bool:
    return directory.is_dir() and not directory.is_mount() and not any(directory.iterdir())


def _has_tree(tree: Path) -> bool:
    return tree.is_dir() and not (tree.is_mount() and not any(tree.iterdir()))


def _remove_tree(tree: Path) -> None:
    """Also where a link leads: a large spool is often put on a disk of its own."""
    place = tree.resolve()
    empty(place)
    if tree.is_symlink():
        tree.unlink()
    if not place.is_mount():
        place.rmdir()
