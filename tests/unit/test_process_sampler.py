"""The sampler on a made-up /proc, and as the program that it is on real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import IO, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.collection.process_sampler import (
    MAX_PIDS,
    ProcessReader,
    command_line,
    next_tick,
    parse_stat,
)

INTERVAL_MS = 20
NOBODY = 65_534
JIFFY_SEC = 1 / os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
STAT = (
    "{pid} ({comm}) S 1 4711 4711 0 -1 4194560 101 0 7 0 1234 567 0 0 20 0 3 0 {start} "
    "10000000 2500 18446744073709551615 1 1 0 0 0 0 0 0 0 0 0 0 17 1 0 0 0 0 0 0 0 0 0 0 0 0 0\n"
)
IO_FILE = """\
rchar: 5000
wchar: 6000
syscr: 7
syscw: 8
read_bytes: 4096
write_bytes: 8192
cancelled_write_bytes: 0
"""
STATUS = """\
Name:\tdd
Umask:\t0022
VmRSS:\t   10000 kB
Threads:\t3
voluntary_ctxt_switches:\t11
nonvoluntary_ctxt_switches:\t22
"""


def make_process(proc: Path, pid: int, comm: str = "dd", start: int = 777) -> Path:
    directory = proc / str(pid)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "stat").write_text(STAT.format(pid=pid, comm=comm, start=start))
    (directory / "io").write_text(IO_FILE)
    (directory / "status").write_text(STATUS)
    return directory


class Sampler:
    """The running program; rows are kept by process as they are read."""

    def __init__(self, process: subprocess.Popen[bytes], rows: IO[bytes]) -> None:
        self.process = process
        self.rows: dict[int, list[dict[str, Any]]] = defaultdict(list)
        self._pipe = rows

    def read_until(self, condition: Callable[[], bool]) -> None:
        """Read rows until it holds; the end of them before that is a failure."""
        while not condition():
            line = self._pipe.readline()
            assert line, "the sampler ended too soon"
            self._keep(line)

    def read_to_end(self) -> int:
        """Read what is left; the exit status."""
        for line in self._pipe:
            self._keep(line)
        return self.process.wait()

    def _keep(self, line: bytes) -> None:
        assert line.endswith(b"}\n")
        row = json.loads(line)
        self.rows[row["pid"]].append(row)


@contextmanager
def sampling(*pids: int, proc_root: str = "/proc") -> Iterator[Sampler]:
    argv = command_line(pids, proc_root, INTERVAL_MS)
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
        assert process.stdout
        try:
            yield Sampler(process, process.stdout)
        finally:
            process.kill()


@contextmanager
def child(*argv: str) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(argv, stdin=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def test_a_row_holds_every_column(tmp_path: Path) -> None:
    make_process(tmp_path, 4711)
    row = ProcessReader(str(tmp_path), 4711).sample()
    assert row is not None
    assert isinstance(row.pop("t_mono_ns"), int)
    assert isinstance(row.pop("t_wall_ns"), int)
    assert row == {
        "source": "host_proc",
        "available_in_deployment": True,
        "pid": 4711,
        "comm": "dd",
        "state": "S",
        "threads": 3,
        "cpu_user_jiffies": 1234,
        "cpu_sys_jiffies": 567,
        "rss_bytes": 2500 * PAGE,
        "vsize_bytes": 10_000_000,
        "io_read_bytes": 4096,
        "io_write_bytes": 8192,
        "rchar": 5000,
        "wchar": 6000,
        "voluntary_ctxsw": 11,
        "involuntary_ctxsw": 22,
        "minor_faults": 101,
        "major_faults": 7,
    }


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=15))
def test_any_name_of_a_process_is_read(comm: str) -> None:
    start_time, columns = parse_stat(STAT.format(pid=1, comm=comm, start=55))
    assert (start_time, columns["comm"], columns["state"]) == (55, comm, "S")


@pytest.mark.parametrize("comm", ["tmux: server", "a) S (b", ") R 9 9", "((sd-pam))"])
def test_names_with_spaces_and_parentheses(tmp_path: Path, comm: str) -> None:
    make_process(tmp_path, 9, comm)
    row = ProcessReader(str(tmp_path), 9).sample()
    assert row is not None
    assert (row["comm"], row["state"], row["cpu_user_jiffies"]) == (comm, "S", 1234)


def test_without_io_its_columns_are_null(tmp_path: Path) -> None:
    (make_process(tmp_path, 9) / "io").unlink()
    row = ProcessReader(str(tmp_path), 9).sample()
    assert row is not None
    for column in ("io_read_bytes", "io_write_bytes", "rchar", "wchar"):
        assert row[column] is None
    assert row["voluntary_ctxsw"] == 11


def test_without_the_right_to_io_the_rest_is_there() -> None:
    own = os.geteuid()
    os.seteuid(own or NOBODY)
    try:
        row = ProcessReader("/proc", 1).sample()
    finally:
        os.seteuid(own)
    assert row is not None
    assert (row["io_read_bytes"], row["io_write_bytes"]) == (None, None)
    assert row["vsize_bytes"]


def test_a_later_process_with_the_number_is_another_one(tmp_path: Path) -> None:
    make_process(tmp_path, 9, start=100)
    reader = ProcessReader(str(tmp_path), 9)
    assert reader.sample()
    make_process(tmp_path, 9, start=101)
    assert reader.sample() is None
    make_process(tmp_path, 9, start=100)
    assert reader.sample()


def test_no_process_no_row(tmp_path: Path) -> None:
    assert ProcessReader(str(tmp_path), 9).sample() is None


@given(st.integers(0, 1 << 62), st.integers(1, 10**11))
def test_the_next_tick_is_the_nearest_one_ahead_on_the_grid(now: int, interval: int) -> None:
    tick = next_tick(now, interval)
    assert tick % interval == 0
    assert now < tick <= now + interval
    assert next_tick(tick, interval) == tick + interval


def test_no_two_rows_of_a_process_share_a_tick() -> None:
    interval_ns = INTERVAL_MS * 1_000_000
    with sampling(os.getpid()) as sampler:
        sampler.read_until(lambda: len(sampler.rows[os.getpid()]) == 30)
    times = [row["t_mono_ns"] for row in sampler.rows[os.getpid()]]
    ticks = [time // interval_ns for time in times]
    assert all(later > earlier for earlier, later in pairwise(ticks))


def test_a_busy_and_a_sleeping_process() -> None:
    def busy_jiffies() -> int:
        rows = sampler.rows[busy.pid]
        return rows[-1]["cpu_user_jiffies"] - rows[0]["cpu_user_jiffies"] if rows else 0

    with (
        child(sys.executable, "-S", "-c", "while True: pass") as busy,
        child("sleep", "600") as sleeping,
        sampling(busy.pid, sleeping.pid) as sampler,
    ):
        sampler.read_until(lambda: busy_jiffies() >= 5 and len(sampler.rows[sleeping.pid]) >= 5)
        busy.kill()
        _, _, usage = os.wait4(busy.pid, 0)
    asleep = [row for row in sampler.rows[sleeping.pid] if row["comm"] == "sleep"]
    assert asleep[-1]["state"] == "S"
    assert asleep[-1]["rss_bytes"] > 0
    last = sampler.rows[busy.pid][-1]
    assert last["cpu_user_jiffies"] * JIFFY_SEC <= usage.ru_utime + JIFFY_SEC
    assert asleep[-1]["cpu_user_jiffies"] < busy_jiffies()


def test_io_and_context_switches_of_a_real_process_grow() -> None:
    with child("cat") as cat, sampling(cat.pid) as sampler:
        rows = sampler.rows[cat.pid]
        sampler.read_until(lambda: bool(rows) and rows[-1]["comm"] == "cat")
        assert cat.stdin
        before = rows[-1]
        cat.stdin.write(b"\n" * 1000)
        cat.stdin.flush()
        sampler.read_until(lambda: rows[-1]["rchar"] >= before["rchar"] + 1000)
        sampler.read_until(lambda: rows[-1]["voluntary_ctxsw"] > before["voluntary_ctxsw"])


def test_one_that_ends_does_not_end_the_others_the_last_one_does() -> None:
    with (
        child("cat") as first,
        child("cat") as second,
        sampling(first.pid, second.pid, 2**22 + 1) as sampler,
    ):
        sampler.read_until(lambda: bool(sampler.rows[first.pid] and sampler.rows[second.pid]))
        first.communicate()
        seen = len(sampler.rows[second.pid])
        sampler.read_until(lambda: len(sampler.rows[second.pid]) == seen + 20)
        second.communicate()
        assert sampler.read_to_end() == 0
    last = {pid: rows[-1]["t_mono_ns"] for pid, rows in sampler.rows.items()}
    assert last[first.pid] < last[second.pid]
    assert set(last) == {first.pid, second.pid}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_status_0(number: signal.Signals) -> None:
    with sampling(os.getpid()) as sampler:
        sampler.read_until(lambda: len(sampler.rows[os.getpid()]) == 2)
        sampler.process.send_signal(number)
        assert sampler.read_to_end() == 0


def test_a_process_whose_files_block_leaves_the_others_their_rows(tmp_path: Path) -> None:
    """A pipe without a writer blocks like a lock that is never given back."""
    sick = make_process(tmp_path, 1)
    (sick / "io").unlink()
    os.mkfifo(sick / "io")
    make_process(tmp_path, 2)
    with sampling(1, 2, proc_root=str(tmp_path)) as sampler:
        sampler.read_until(lambda: len(sampler.rows[2]) == 10)
        sampler.process.terminate()
        assert sampler.read_to_end() == 0
    assert not sampler.rows[1]


def test_it_ends_when_nobody_takes_the_rows() -> None:
    argv = command_line([os.getpid()], interval_ms=INTERVAL_MS)
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        process.stdout.close()
        process.stdout = None
        _, errors = process.communicate()
    assert process.returncode == 0
    assert errors == b"process_sampler: [Errno 32] Broken pipe\n"


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--pid", *map(str, range(1, MAX_PIDS + 2))], b"at most 32 processes"),
        (["--pid", "1", "--interval-ms", "0"], b"--interval-ms is at least 1"),
        (["--pid", "../1"], b"invalid int value"),
        ([], b"--pid"),
    ],
)
def test_wrong_options_are_refused(options: list[str], complaint: bytes) -> None:
    program = command_line([])[:4]
    result = subprocess.run([*program, *options], capture_output=True, check=False)
    assert result.returncode == 2
    assert complaint in result.stderr


def test_it_starts_without_numpy_and_the_agent() -> None:
    python, *arguments = command_line([2**22 + 1])
    program = [python, "-X", "importtime", *arguments]
    result = subprocess.run(program, capture_output=True, text=True, check=True)
    modules = {line.rpartition("|")[2].strip() for line in result.stderr.splitlines()}
    assert "json" in modules
    assert not {name for name in modules if name.partition(".")[0] in ("numpy", "agent", "site")}
