"""The floor under the free space, asked of the file system that the tests run on."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from agent.storage.free_space import MEGABYTE, DiskNearlyFullError, FreeSpace

ABSURD_MB = 1e12


def test_with_enough_free_there_is_room(tmp_path: Path) -> None:
    FreeSpace(tmp_path, 0.001).room_for_bundle()


def test_without_a_floor_there_is_always_room(tmp_path: Path) -> None:
    space = FreeSpace(tmp_path, 0)
    space.room_for_bundle()
    assert (space.look().floor_bytes, space.look().missing_bytes) == (0, 0)


def test_below_the_floor_the_error_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DiskNearlyFullError) as caught:
        FreeSpace(tmp_path, ABSURD_MB).room_for_bundle()
    assert isinstance(caught.value, OSError)
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename == str(tmp_path)
    for words in ("cleanup.min_free_mb", "1e+12", "make room", "aod-shipper"):
        assert words in str(caught.value)


def test_a_floor_that_is_changed_counts_at_once(tmp_path: Path) -> None:
    space = FreeSpace(tmp_path, ABSURD_MB)
    space.min_free_mb = 0.001
    space.room_for_bundle()


def test_what_an_ordinary_user_may_take_is_free(tmp_path: Path) -> None:
    free, status = FreeSpace(tmp_path, 7).look(), os.statvfs(tmp_path)
    assert free.floor_bytes == 7 * MEGABYTE
    assert free.free_bytes is not None
    assert free.free_bytes <= status.f_bfree * status.f_frsize


def test_a_spool_that_is_not_there_yet_lies_on_its_parents_file_system(tmp_path: Path) -> None:
    assert FreeSpace(tmp_path / "not" / "yet", ABSURD_MB).look().missing_bytes > 0


def test_a_file_system_that_cannot_be_asked_does_without_a_floor(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    space = FreeSpace(tmp_path / "file" / "spool", ABSURD_MB)
    assert "Not a directory" in space.look().fault
    assert space.look().free_bytes is None
    space.room_for_bundle()


def test_what_is_about_to_be_written_counts(tmp_path: Path) -> None:
    space = FreeSpace(tmp_path, 0.001)
    space.room_for_bundle(1 << 20)
    with pytest.raises(DiskNearlyFullError):
        space.room_for_bundle(1 << 60)
    FreeSpace(tmp_path, 0).room_for_bundle(1 << 60)
