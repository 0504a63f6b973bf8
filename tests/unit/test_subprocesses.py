"""Real children: they hang, flood, fork and outlive nobody."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from agent.collection.subprocesses import (
    STDERR_TAIL,
    CommandResult,
    Halt,
    Limits,
    run_command,
)
from tests.evidence import wait_until

LIMITS = Limits(timeout_sec=20, max_bytes=1 << 20, grace_sec=5)
ALL_NUMBERS = b"".join(b"%d\n" % number for number in range(1, 1_000_001))


def python(*lines: str) -> list[str]:
    return [sys.executable, "-S", "-c", "\n".join(lines)]


def run(argv: list[str], output: Path, limits: Limits = LIMITS) -> CommandResult:
    return asyncio.run(run_command(argv, output, limits))


def exists(pid: int) -> bool:
    """Whether the process lives; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def read_pid(path: Path) -> int:
    wait_until(lambda: path.exists() and path.read_text().endswith("\n"))
    return int(path.read_text())


def test_output_goes_to_a_private_file_and_the_result_says_how_it_went(tmp_path: Path) -> None:
    output = tmp_path / "out.log"
    result = run(
        python("import sys", "print('to the file')", "print('to people', file=sys.stderr)"), output
    )
    assert output.read_text() == "to the file\n"
    assert stat.S_IMODE(output.stat().st_mode) & ~0o640 == 0
    assert (result.found, result.exit, result.signal) == (True, 0, None)
    assert (result.bytes, result.truncated, result.timed_out) == (12, False, False)
    assert result.stderr_tail == "to people"
    assert list(tmp_path.iterdir()) == [output]


def test_the_child_has_no_input_c_locale_and_its_own_session(tmp_path: Path) -> None:
    program = python(
        "import os, sys",
        "print(repr(sys.stdin.read()), os.environ['LC_ALL'], os.getcwd())",
        "print(os.getsid(0) == os.getpid() == os.getpgid(0))",
    )
    run(program, tmp_path / "out")
    assert (tmp_path / "out").read_text() == "'' C /\nTrue\n"


def test_a_missing_program_is_not_a_failed_one(tmp_path: Path) -> None:
    missing = run(["no-such-program-here"], tmp_path / "missing")
    assert (missing.found, missing.exit) == (False, None)
    assert not (tmp_path / "missing").exists()
    failed = run(python("raise SystemExit(7)"), tmp_path / "failed")
    assert (failed.found, failed.exit) == (True, 7)


def test_a_program_that_may_not_be_run_is_an_error(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_text("no program")
    with pytest.raises(PermissionError):
        run([str(plain)], tmp_path / "out")


def test_an_existing_output_or_a_link_is_refused(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "link").symlink_to(victim)
    for name in ("victim", "link"):
        with pytest.raises(FileExistsError):
            run(["echo", "overwritten"], tmp_path / name)
    assert victim.read_text() == "precious"


def test_death_by_signal_is_told_apart_from_an_exit(tmp_path: Path) -> None:
    result = run(python("import os", "os.kill(os.getpid(), 10)"), tmp_path / "out")
    assert (result.exit, result.signal) == (None, signal.SIGUSR1)


def test_a_hanging_child_gets_sigterm_first(tmp_path: Path) -> None:
    limits = Limits(timeout_sec=1.0, max_bytes=1 << 20, grace_sec=20)
    program = python(
        "import signal, sys, time",
        "signal.signal(signal.SIGTERM, lambda *_: (print('saved'), sys.exit(3)))",
        "time.sleep(60)",
    )
    result = run(program, tmp_path / "out", limits)
    assert (result.timed_out, result.exit) == (True, 3)
    assert (tmp_path / "out").read_text() == "saved\n"


def test_a_child_that_ignores_sigterm_is_killed_and_reaped(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    program = python(
        "import os, signal, time",
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)",
        "print('before', flush=True)",
        f"open({str(pid_file)!r}, 'w').write(f'{{os.getpid()}}\\n')",
        "time.sleep(60)",
    )
    limits = Limits(timeout_sec=2.0, max_bytes=1 << 20, grace_sec=0.2)
    result = run(program, tmp_path / "out", limits)
    assert (result.timed_out, result.signal) == (True, signal.SIGKILL)
    assert (tmp_path / "out").read_text() == "before\n"
    assert not exists(read_pid(pid_file))


def test_a_flood_is_cut_at_the_limit(tmp_path: Path) -> None:
    limits = Limits(timeout_sec=20, max_bytes=100_000)
    result = run(["seq", "1000000"], tmp_path / "out", limits)
    assert result.truncated
    assert (result.timed_out, result.exit) == (False, 0)
    content = (tmp_path / "out").read_bytes()
    head, told, tail = re.split(rb"\n\.\.\. ([0-9,]+) bytes cut here \.\.\.\n", content)
    assert result.bytes == len(content) <= 100_000
    assert head == ALL_NUMBERS[: len(head)]
    assert tail == ALL_NUMBERS[-len(tail) :]
    assert len(head) + len(tail) + int(told.replace(b",", b"")) == len(ALL_NUMBERS)
    assert ALL_NUMBERS[-len(tail) - 1 :][:1] == b"\n", "a line without its beginning is left out"
    assert len(content) > 99_000


def test_of_an_output_whose_middle_cannot_go_the_beginning_is_kept(tmp_path: Path) -> None:
    limits = Limits(timeout_sec=20, max_bytes=100_000, keep_tail=False)
    result = run(["yes"], tmp_path / "out", limits)
    assert result.truncated
    assert not result.timed_out, "it found its pipe closed"
    assert (tmp_path / "out").read_bytes() == b"y\n" * 50_000


def test_what_goes_on_until_told_is_told_and_has_not_failed(tmp_path: Path) -> None:
    program = python(
        "import signal, sys, time",
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))",
        "print('started', flush=True)",
        "time.sleep(60)",
    )

    async def tell_when_started() -> CommandResult:
        over: Halt = asyncio.get_running_loop().create_future()
        command = run_command(program, tmp_path / "out", LIMITS, None, over)
        task = asyncio.create_task(command)
        while not (tmp_path / "out").exists() or not (tmp_path / "out").read_text():
            await asyncio.sleep(0.005)
        over.set_result(None)
        return await task

    result = asyncio.run(tell_when_started())
    assert (result.told, result.timed_out, result.stopped, result.exit) == (True, False, False, 0)
    assert (tmp_path / "out").read_text() == "started\n"


def test_only_the_end_of_a_long_stderr_is_kept(tmp_path: Path) -> None:
    program = python("import sys", "sys.stderr.write('a whole line\\n' * 5_000 + 'the end')")
    result = run(program, tmp_path / "out")
    *lines, last = result.stderr_tail.splitlines()
    assert last == "the end"
    assert set(lines) == {"a whole line"}
    assert STDERR_TAIL - 20 < len(result.stderr_tail) <= STDERR_TAIL


FORKS = (
    "import os, signal, sys, time",
    "signal.signal(signal.SIGTERM, signal.SIG_IGN)",
    "child = os.fork()",
    "if child:",
    "    open(sys.argv[1], 'w').write(f'{child}\\n')",
    "else:",
    "    time.sleep(60)",
)


@pytest.mark.parametrize("parent_stays", [True, False])
def test_grandchildren_are_killed_too(tmp_path: Path, parent_stays: bool) -> None:
    pid_file = tmp_path / "pid"
    ending = ("time.sleep(60)",) if parent_stays else ()
    limits = Limits(timeout_sec=2.0, max_bytes=1 << 20, grace_sec=0.2)
    result = run([*python(*FORKS, *ending), str(pid_file)], tmp_path / "out", limits)
    assert result.timed_out is parent_stays
    grandchild = read_pid(pid_file)
    wait_until(lambda: not exists(grandchild))


def test_cancellation_kills_and_reaps_the_child(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    program = python(
        "import os, time",
        f"open({str(pid_file)!r}, 'w').write(f'{{os.getpid()}}\\n')",
        "time.sleep(60)",
    )

    async def cancel_when_started() -> None:
        task = asyncio.create_task(run_command(program, tmp_path / "out", LIMITS))
        while not (pid_file.exists() and pid_file.read_text()):
            await asyncio.sleep(0.005)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel_when_started())
    assert not Path(f"/proc/{read_pid(pid_file)}").exists()


def test_many_at_once_leave_neither_zombies_nor_descriptors(tmp_path: Path) -> None:
    async def many() -> list[CommandResult]:
        outputs = [tmp_path / f"out{number}" for number in range(20)]
        return await asyncio.gather(*(run_command(["echo", "x"], o, LIMITS) for o in outputs))

    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    results = asyncio.run(many())
    assert [result.exit for result in results] == [0] * 20
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_the_child_dies_when_its_parent_is_killed(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    child = python(
        "import os, signal, time",
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)",
        f"open({str(pid_file)!r}, 'w').write(f'{{os.getpid()}}\\n')",
        "time.sleep(60)",
    )
    parent = [
        sys.executable,
        "-c",
        "import asyncio, sys, pathlib\n"
        "from agent.collection.subprocesses import Limits, run_command\n"
        "asyncio.run(run_command(sys.argv[2:], pathlib.Path(sys.argv[1]), Limits(60, 1 << 20)))",
        str(tmp_path / "out"),
        *child,
    ]
    with subprocess.Popen(parent, cwd=Path(__file__).parents[2]) as process:
        pid = read_pid(pid_file)
        assert exists(pid)
        process.kill()
    wait_until(lambda: not exists(pid))
