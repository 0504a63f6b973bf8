"""Reading DebugData and the mounts by children; a pipe that nobody writes is a sick session."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from agent import children
from agent.cifs.file_reader import MAX_BYTES
from agent.cifs.state import CifsTexts, read_texts
from tests.evidence import wait_until
from tests.unit.test_subprocesses import exists

ENOUGH_SEC, SHORT_SEC = 60.0, 0.3


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """A /proc with an SMB client."""
    for name in ("fs/cifs", "1", "self"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "fs/cifs/DebugData").write_text("Servers: \n")
    (tmp_path / "1/mountinfo").write_text("the host's\n")
    (tmp_path / "self/mountinfo").write_text("its own\n")
    return tmp_path


@pytest.fixture
def silent(proc: Path) -> Path:
    """DebugData is a pipe that nobody writes to."""
    debug_data = proc / "fs/cifs/DebugData"
    debug_data.unlink()
    os.mkfifo(debug_data)
    return debug_data


def children_of_this_process() -> list[int]:
    listed = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
    return [int(pid) for pid in listed.split()]


def answer(silent: Path) -> None:
    silent.unlink()
    silent.write_text("well again\n")


def test_both_texts_are_read(proc: Path) -> None:
    before = children_of_this_process(), len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    assert read_texts(ENOUGH_SEC, proc) == CifsTexts("Servers: \n", "the host's\n", "")
    assert (children_of_this_process(), len(os.listdir("/proc/self/fd"))) == before  # noqa: PTH208


def test_the_real_proc_is_read() -> None:
    assert " / / " in read_texts(ENOUGH_SEC).mountinfo


def test_debug_data_that_does_not_answer_is_a_fault_and_leaves_no_child(
    proc: Path, silent: Path
) -> None:
    before = children_of_this_process()
    too_late = threading.Timer(10, lambda: silent.write_text("an answer\n"))
    too_late.daemon = True
    too_late.start()
    expected = CifsTexts("", "the host's\n", f"{silent} did not answer within 0.3 s")
    assert read_texts(SHORT_SEC, proc) == expected
    too_late.cancel()
    wait_until(lambda: not any(map(exists, set(children_of_this_process()) - set(before))))
    answer(silent)
    assert read_texts(ENOUGH_SEC, proc) == CifsTexts("well again\n", "the host's\n", "")
    assert children_of_this_process() == before


def test_an_absent_file_is_said_to_be_absent(proc: Path) -> None:
    debug_data = proc / "fs/cifs/DebugData"
    debug_data.unlink()
    assert read_texts(ENOUGH_SEC, proc).fault == f"{debug_data} is not there"


def test_without_rights_for_the_first_process_its_own_mounts_are_read(proc: Path) -> None:
    (proc / "1/mountinfo").unlink()
    assert read_texts(ENOUGH_SEC, proc) == CifsTexts("Servers: \n", "its own\n", "")


def test_each_fault_is_told(proc: Path) -> None:
    (proc / "self/mountinfo").unlink()
    for name in ("1/mountinfo", "fs/cifs/DebugData"):
        (proc / name).unlink()
        (proc / name).mkdir()
    assert read_texts(ENOUGH_SEC, proc) == CifsTexts(
        "",
        "",
        f"{proc}/fs/cifs/DebugData could not be read: Is a directory; "
        f"{proc}/self/mountinfo is not there",
    )


def test_a_flood_is_bounded_and_told(proc: Path) -> None:
    debug_data = proc / "fs/cifs/DebugData"
    debug_data.write_bytes(b"x" * (MAX_BYTES + 1))
    texts = read_texts(ENOUGH_SEC, proc)
    assert texts == CifsTexts("", "the host's\n", f"{debug_data} could not be read: File too large")
    debug_data.write_bytes(b"x" * MAX_BYTES)
    assert len(read_texts(ENOUGH_SEC, proc).debug_data) == MAX_BYTES


def test_bytes_that_are_no_utf8_are_replaced(proc: Path) -> None:
    (proc / "fs/cifs/DebugData").write_bytes(b"gr\xfc\xdfe\n")
    assert read_texts(ENOUGH_SEC, proc).debug_data == "gr��e\n"


def test_no_program_to_read_with_is_a_fault(proc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(proc))
    texts = read_texts(ENOUGH_SEC, proc)
    assert (texts.debug_data, texts.mountinfo) == ("", "")
    assert "no child" in texts.fault
    assert "cat" in texts.fault


def test_a_child_that_cannot_die_is_left_alone_and_reaped_later(
    proc: Path, silent: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel would not end it: a second child for the same file would be one more."""
    before = children_of_this_process()
    with monkeypatch.context() as uninterruptible:
        uninterruptible.setattr(children.os, "killpg", lambda _pid, _signal: None)
        assert read_texts(SHORT_SEC, proc).fault == f"{silent} did not answer within 0.3 s"
    (held,) = set(children_of_this_process()) - set(before)
    texts = read_texts(ENOUGH_SEC, proc)
    assert texts == CifsTexts(
        "", "the host's\n", f"{silent} has not answered an earlier reader yet"
    )
    assert set(children_of_this_process()) - set(before) == {held}
    os.kill(held, signal.SIGKILL)
    wait_until(lambda: not exists(held))
    answer(silent)
    assert read_texts(ENOUGH_SEC, proc) == CifsTexts("well again\n", "the host's\n", "")
    assert children_of_this_process() == before


def test_the_child_dies_when_its_parent_is_killed(proc: Path, silent: Path) -> None:
    program = (
        "import sys, pathlib\n"
        "from agent.cifs.state import read_texts\n"
        "assert 'asyncio' not in sys.modules\n"
        "read_texts(600, pathlib.Path(sys.argv[1]))\n"
    )
    argv = [sys.executable, "-c", program, str(proc)]
    with subprocess.Popen(argv, cwd=Path(__file__).parents[2]) as parent:
        try:
            wait_until(lambda: bool(readers(parent.pid, silent)))
            (reader,) = readers(parent.pid, silent)
        finally:
            parent.kill()
    wait_until(lambda: not exists(reader))


def readers(parent: int, path: Path) -> list[int]:
    """Children that have become the program that reads the file."""
    pids = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    wanted = ["cat", "--", str(path), ""]
    return [int(pid) for pid in pids if command_line(pid) == wanted]


def command_line(pid: str) -> list[str]:
    """Arguments, the program by its name alone."""
    program, *words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    return [Path(program).name, *words]
