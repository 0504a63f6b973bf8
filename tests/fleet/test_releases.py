"""Releases below a prefix: which are whole, and which may go."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.fleet.module_code import module_code


def release(prefix: Path, version: str, age: int = 0) -> Path:
    """A complete one; a greater ``age`` is older."""
    tree = prefix / version
    (tree / "bin").mkdir(parents=True)
    (tree / "bin/python").touch()
    (tree / ".complete").touch()
    os.utime(tree / ".complete", (1000 - age, 1000 - age))
    return tree


def test_what_is_live_or_the_way_back_is_never_superfluous(tmp_path: Path) -> None:
    releases = module_code("module_utils.releases")
    trees = [release(tmp_path, f"{number}.0", age=9 - number) for number in range(1, 6)]
    (tmp_path / "current").symlink_to("2.0")
    (tmp_path / "previous").symlink_to("1.0")
    assert releases.superfluous(tmp_path, "2.0", 0) == []
    assert releases.superfluous(tmp_path, "2.0", 3) == [trees[3], trees[2]]
    assert set(releases.superfluous(tmp_path, "2.0", 1)) == set(trees[2:])


def test_a_removal_that_ends_half_way_leaves_nothing_that_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    releases = module_code("module_utils.releases")
    tree = release(tmp_path, "1.0")

    def killed(path: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(releases.shutil, "rmtree", killed)
        releases.remove_release(tree)
    assert not releases.is_complete(tree)
    assert (tree / ".incomplete").exists()  # by which install.py knows it for its own
    assert releases.superfluous(tmp_path, "2.0", 2) == [tree]
    releases.remove_release(tree)
    assert list(tmp_path.iterdir()) == []


def test_a_release_that_is_begun_anew_is_not_whole(tmp_path: Path) -> None:
    """install.py marks it first, and then empties it in no order."""
    releases = module_code("module_utils.releases")
    tree = release(tmp_path, "1.0")
    (tree / ".incomplete").touch()
    assert not releases.is_complete(tree)
    (tmp_path / "current").symlink_to("1.0")
    assert releases.superfluous(tmp_path, "2.0", 1) == []
