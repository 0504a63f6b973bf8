"""A file is redacted in place, as a whole, and only if it holds something."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from agent.redaction.redactor import Redactor
from agent.redaction.stream import Window
from agent.storage.durable_file import UnsafeFileError

SECRET = b"password=Gone4ever,vers=3.0\n"
CLEAN = b"password=[redacted:password],vers=3.0\n"


def test_secrets_go_wherever_they_stand_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "journal.log"
    quiet = b"kernel: all is well \xff\xfe\n" * 500
    path.write_bytes(quiet + SECRET + quiet + SECRET)
    counts = Redactor(window=Window(piece=4_096, overlap=1_024)).redact_file(path)
    assert counts == {"password": 2}
    assert path.read_bytes() == quiet + CLEAN + quiet + CLEAN
    assert stat.S_IMODE(path.stat().st_mode) & ~0o640 == 0
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("content", [b"", b"nothing to hide", b"line\n" * 300_000])
def test_a_file_without_secrets_is_not_written(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "journal.log"
    path.write_bytes(content)
    before = path.stat()
    assert Redactor().redact_file(path) == {}
    assert path.read_bytes() == content
    after = path.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_redacting_twice_counts_nothing(tmp_path: Path) -> None:
    path = tmp_path / "mounts.log"
    path.write_bytes(SECRET)
    Redactor().redact_file(path)
    inode = path.stat().st_ino
    assert Redactor().redact_file(path) == {}
    assert path.stat().st_ino == inode


def test_other_things_than_plain_files_are_refused(tmp_path: Path) -> None:
    victim, link, pipe = tmp_path / "victim", tmp_path / "link", tmp_path / "pipe"
    victim.write_bytes(SECRET)
    link.symlink_to(victim)
    os.mkfifo(pipe)
    for path in (link, pipe):
        with pytest.raises(UnsafeFileError):
            Redactor().redact_file(path)
    assert victim.read_bytes() == SECRET
    with pytest.raises(FileNotFoundError):
        Redactor().redact_file(tmp_path / "missing")


def test_a_failure_is_told_and_leaves_the_file_and_no_temporary(tmp_path: Path) -> None:
    """The name is short enough for the file and too long for a temporary beside it."""
    path = tmp_path / ("x" * 250)
    path.write_bytes(SECRET)
    with pytest.raises(OSError, match="too long"):
        Redactor().redact_file(path)
    assert path.read_bytes() == SECRET
    assert list(tmp_path.iterdir()) == [path]
