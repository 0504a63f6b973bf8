"""Files appear whole or not at all, and only plain files are read."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from agent.storage import durable_file
from tests.evidence import wait_until


def test_published_bytes_are_there_private_and_alone(tmp_path: Path) -> None:
    final = tmp_path / "x.done"
    durable_file.publish_bytes(final, b"one")
    durable_file.publish_bytes(final, b"two")
    assert final.read_bytes() == b"two"
    assert stat.S_IMODE(final.stat().st_mode) & ~0o640 == 0
    assert list(tmp_path.iterdir()) == [final]


def test_a_directory_is_made_with_its_parents_and_may_be_there(tmp_path: Path) -> None:
    made = tmp_path / "a" / "b"
    for _ in range(2):
        durable_file.make_directory(made, 0o750)
    assert stat.S_IMODE(made.stat().st_mode) & ~0o750 == 0
    assert stat.S_IMODE(made.parent.stat().st_mode) & 0o700 == 0o700
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError):
        durable_file.make_directory(tmp_path / "file")


def test_publishing_replaces_a_link_and_never_writes_through_it(tmp_path: Path) -> None:
    victim, final = tmp_path / "victim", tmp_path / "x.done"
    victim.write_text("precious")
    final.symlink_to(victim)
    durable_file.publish_bytes(final, b"new")
    assert victim.read_text() == "precious"
    assert not final.is_symlink()


def test_a_failed_publish_leaves_the_old_file_and_no_temporary(tmp_path: Path) -> None:
    final = tmp_path / "x.done"
    final.mkdir()
    (final / "inside").touch()
    with pytest.raises(OSError, match=r"x\.done"):
        durable_file.publish_bytes(final, b"new")
    assert list(tmp_path.iterdir()) == [final]


def test_the_temporary_lies_hidden_in_the_same_directory(tmp_path: Path) -> None:
    names = {durable_file.temporary_beside(tmp_path / "x.done") for _ in range(50)}
    assert len(names) == 50
    for name in names:
        assert name.parent == tmp_path
        assert name.name.startswith(".x.done.")
        assert name.name.endswith(durable_file.TEMPORARY_SUFFIX)


@pytest.mark.parametrize("kind", ["file", "link", "dangling link"])
def test_create_exclusive_takes_no_existing_name(tmp_path: Path, kind: str) -> None:
    path, target = tmp_path / "new", tmp_path / "target"
    if kind == "file":
        path.touch()
    else:
        path.symlink_to(target)
        if kind == "link":
            target.touch()
    with pytest.raises(FileExistsError):
        durable_file.create_exclusive(path)
    assert target.exists() == (kind == "link")


def test_create_exclusive_opens_no_device_or_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FileExistsError):
        durable_file.create_exclusive(tmp_path / "pipe")


def test_only_plain_files_are_read(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_bytes(b"data")
    assert durable_file.read_plain(plain) == b"data"
    assert durable_file.read_plain(plain, limit=2) == b"da"
    (tmp_path / "link").symlink_to(plain)
    os.mkfifo(tmp_path / "pipe")  # opening it must not wait for a writer
    (tmp_path / "directory").mkdir()
    for name in ("link", "pipe", "directory"):
        with pytest.raises(durable_file.UnsafeFileError):
            durable_file.read_plain(tmp_path / name)
    with pytest.raises(durable_file.UnsafeFileError):
        durable_file.read_plain(Path("/dev/zero"))
    with pytest.raises(FileNotFoundError):
        durable_file.read_plain(tmp_path / "absent")


def test_a_socket_is_not_read(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        with pytest.raises(OSError, match="socket"):
            durable_file.read_plain(tmp_path / "socket")


def test_refusing_leaks_no_descriptor(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(20):
        with pytest.raises(durable_file.UnsafeFileError):
            durable_file.read_plain(tmp_path / "pipe")
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_readers_beside_a_killed_writer_see_whole_files_only(tmp_path: Path) -> None:
    """The writer replaces one file again and again and is killed in the middle of it."""
    final = tmp_path / "x.done"
    program = (
        "import pathlib, sys\n"
        "from agent.storage.durable_file import publish_bytes\n"
        "for n in range(10**9):\n"
        "    publish_bytes(pathlib.Path(sys.argv[1]), b'%d' % (n % 10) * 100_000)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(final)], cwd=Path(__file__).parents[2]
    ) as writer:
        wait_until(final.exists)
        for _ in range(300):
            data = final.read_bytes()
            assert len(data) == 100_000
            assert len(set(data)) == 1
        writer.send_signal(signal.SIGKILL)
    assert len(set(final.read_bytes())) == 1
    leftovers = [path for path in tmp_path.iterdir() if path != final]
    assert all(path.name.endswith(durable_file.TEMPORARY_SUFFIX) for path in leftovers)
