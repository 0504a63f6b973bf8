"""The archive: the same bytes for the same files, readable by tar, of plain files alone."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

import pytest

from agent.collection.archive import PackedArchive, pack
from agent.storage.durable_file import UnsafeFileError

TIME_SEC = 1_700_000_000
LONGEST_NAME = "n" * 100


def make_directory(place: Path, names: str = "abc") -> Path:
    """``ID`` below ``place``, its files made in the order of ``names``; times and modes differ."""
    directory = place / "ID"
    directory.mkdir(parents=True)
    for number, name in enumerate(names):
        (directory / name).write_text(f"{name} is a line of some length\n" * 100_000)
        os.utime(directory / name, (number, number))
        (directory / name).chmod(0o600 + number)
    (directory / "manifest.json").write_text("{}\n")
    return directory


def test_the_same_files_make_the_same_bytes(tmp_path: Path) -> None:
    packed = []
    for place, names in (("one", "abc"), ("two", "cba")):
        directory = make_directory(tmp_path / place, names)
        packed.append(pack(directory, tmp_path / f"{place}.zst", 3, TIME_SEC))
    assert packed[0] == packed[1]
    assert (tmp_path / "one.zst").read_bytes() == (tmp_path / "two.zst").read_bytes()


def test_the_number_of_threads_does_not_change_the_bytes(tmp_path: Path) -> None:
    directory = make_directory(tmp_path)
    packed = [pack(directory, tmp_path / f"{n}.zst", 3, TIME_SEC, threads=n) for n in range(4)]
    assert packed[1] == packed[2] == packed[3]
    # Threads are at work: each has a part of its own.
    assert packed[0] != packed[1]


@pytest.mark.parametrize("threads", [0, 2])
def test_tar_unpacks_it(tmp_path: Path, threads: int) -> None:
    directory = make_directory(tmp_path)
    (directory / LONGEST_NAME).write_bytes(os.urandom(1_000_003))
    target = tmp_path / "ID.tar.zst"
    packed = pack(directory, target, 3, TIME_SEC, threads)
    data = target.read_bytes()
    assert packed == PackedArchive(len(data), hashlib.sha256(data).hexdigest())
    listed = subprocess.run(["tar", "--zstd", "-tf", target], capture_output=True, check=True)
    names = ["manifest.json", "a", "b", "c", LONGEST_NAME]
    assert listed.stdout.decode().split() == [f"ID/{name}" for name in names]
    unpacked = tmp_path / "unpacked"
    unpacked.mkdir()
    subprocess.run(["tar", "--zstd", "-xf", target, "-C", unpacked], check=True)
    for name in names:
        assert (unpacked / "ID" / name).read_bytes() == (directory / name).read_bytes()


def test_a_higher_level_makes_it_smaller(tmp_path: Path) -> None:
    directory = make_directory(tmp_path)
    sizes = [pack(directory, tmp_path / f"{n}.zst", n, TIME_SEC).size for n in (1, 19)]
    assert sizes[1] < sizes[0]


@pytest.mark.parametrize(
    "name",
    ["n" * 101, "-rf", ".hidden", "two\nlines", "\x1b[31mred", "a b", "büro", os.fsdecode(b"\xff")],
)
def test_a_name_that_could_do_harm_is_refused_before_anything_is_written(
    tmp_path: Path, name: str
) -> None:
    directory = make_directory(tmp_path)
    (directory / name).write_text("x")
    with pytest.raises(UnsafeFileError) as caught:
        pack(directory, tmp_path / "target", 3, TIME_SEC)
    assert ascii(name)[1:-1] in str(caught.value).replace("\\\\", "\\")
    assert str(caught.value).isprintable()
    assert not (tmp_path / "target").exists()


def test_only_plain_files_are_packed(tmp_path: Path) -> None:
    directory = make_directory(tmp_path)
    (directory / "below").mkdir()
    with pytest.raises(UnsafeFileError):
        pack(directory, tmp_path / "target", 3, TIME_SEC)


def test_a_file_beyond_what_tar_can_tell_is_refused(tmp_path: Path) -> None:
    directory = make_directory(tmp_path)
    os.truncate(directory / "a", 8 << 30)
    with pytest.raises(OSError, match="too large for a bundle"):
        pack(directory, tmp_path / "target", 3, TIME_SEC)
