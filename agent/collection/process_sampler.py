"""Samples /proc/<pid>/{stat,io,status} at a fixed cadence, a JSON line per process and tick.

A program of its own, because a read of /proc/<pid>/io can wait for the exec_update_lock of a sick
process. `command_line` gives the arguments: isolated, without the site module and with the standard
library alone it samples after 20 ms. It ends with status 0 on SIGTERM or SIGINT, or when the last
process is gone.

In a row, times of the CPU, faults and io are of all threads of the process; context switches are
of its first thread alone, as ``status`` has them.

Every process has a reader thread, so that one whose files block leaves the others their cadence.
Such a wait is killable (down_read_killable in fs/proc/base.c): the program's end needs no answer.
"""

from __future__ import annotations

# Few imports, since they are most of the start.
import argparse
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from types import FrameType

SOURCE = "host_proc"
MAX_PIDS = 32
# The largest of the files, status, has 1.5 KB; each comes whole in one read.
FILE_BYTES = 16_384
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
# The end waits so long for a row under way to be written whole.
LAST_ROW_SEC = 1.0

Row = dict[str, int | str | bool | None]


def command_line(
    pids: Sequence[int], proc_root: str = "/proc", interval_ms: int = 100
) -> tuple[str, ...]:
    """The argument list that runs this program on ``pids``, at most `MAX_PIDS` of them."""
    program = (sys.executable, "-I", "-S", __file__)
    options = (f"--proc-root={proc_root}", f"--interval-ms={interval_ms}")
    return (*program, *options, "--pid", *map(str, pids))


def parse_stat(text: str) -> tuple[int, Row]:
    """Start time and columns of /proc/<pid>/stat; jiffies and faults are of all its threads.

    The name in it may hold spaces, parentheses and line breaks, the rest not.
    """
    start, end = text.index("("), text.rindex(")")
    fields = text[end + 1 :].split()  # the first one, the state, is number 3 in proc(5)
    return int(fields[19]), {
        "comm": text[start + 1 : end],
        "state": fields[0],
        "threads": int(fields[17]),
        "cpu_user_jiffies": int(fields[11]),
        "cpu_sys_jiffies": int(fields[12]),
        "rss_bytes": int(fields[21]) * PAGE_BYTES,
        "vsize_bytes": int(fields[20]),
        "minor_faults": int(fields[7]),
        "major_faults": int(fields[9]),
    }


def parse_numbers(text: str | None) -> dict[str, int]:
    """The ``name: number`` lines of ``io`` or ``status``; none of a file that cannot be read."""
    pairs = (line.partition(":") for line in (text or "").splitlines())
    return {name: int(value) for name, _, value in pairs if value.strip().isdecimal()}


class ProcessReader:
    """Reads one process below ``proc_root``."""

    def __init__(self, proc_root: str, pid: int) -> None:
        self._directory = f"{proc_root}/{pid}"
        self._pid = pid
        self._start_time: int | None = None

    def sample(self) -> Row | None:
        """The row of now; None when the process is gone. May block while the process is sick.

        ``stat`` is read last: with the start time of the first look in it, all the files were of
        the same process, and not of a later one with its number.
        """
        clocks = {"t_mono_ns": time.monotonic_ns(), "t_wall_ns": time.time_ns()}
        if self._start_time is None:
            self._start_time, _ = self._stat()
        io = parse_numbers(self._read("io"))
        status = parse_numbers(self._read("status"))
        start_time, columns = self._stat()
        if start_time is None or start_time != self._start_time:
            return None
        return {
            **clocks,
            "source": SOURCE,
            "available_in_deployment": True,
            "pid": self._pid,
            **columns,
            "io_read_bytes": io.get("read_bytes"),
            "io_write_bytes": io.get("write_bytes"),
            "rchar": io.get("rchar"),
            "wchar": io.get("wchar"),
            "voluntary_ctxsw": status.get("voluntary_ctxt_switches"),
            "involuntary_ctxsw": status.get("nonvoluntary_ctxt_switches"),
        }

    def _stat(self) -> tuple[int | None, Row]:
        text = self._read("stat")
        return (None, {}) if text is None else parse_stat(text)

    def _read(self, name: str) -> str | None:
        """None without permission, and once the process is gone: ``stat`` tells which."""
        try:
            descriptor = os.open(f"{self._directory}/{name}", os.O_RDONLY | os.O_CLOEXEC)
            try:
                return os.read(descriptor, FILE_BYTES).decode("utf-8", "replace")
            finally:
                os.close(descriptor)
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            return None


def next_tick(now_ns: int, interval_ns: int) -> int:
    """The next whole multiple of the interval on CLOCK_MONOTONIC.

    So nothing adds up, whoever is late leaves ticks out, and all samplers of a host tick together.
    """
    return (now_ns // interval_ns + 1) * interval_ns


class RowWriter:
    """Writes rows whole and at once; for several threads."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lock = threading.Lock()

    def write(self, row: Row) -> None:
        """Append ``row`` as a line. Raises OSError."""
        line = json.dumps(row, separators=(",", ":")).encode() + b"\n"
        with self._lock:
            while line:
                line = line[os.write(self._descriptor, line) :]

    def close(self) -> None:
        """No row is begun after this; waits a little for one under way."""
        self._lock.acquire(timeout=LAST_ROW_SEC)


def follow(reader: ProcessReader, writer: RowWriter, interval_ns: int) -> None:
    """Sample now and at every tick until the process is gone, or nobody takes the rows."""
    while row := reader.sample():
        try:
            writer.write(row)
        except OSError as error:  # the size limit, a full disk, a closed pipe
            print(f"process_sampler: {error}", file=sys.stderr)  # noqa: T201
            return
        now_ns = time.monotonic_ns()
        time.sleep((next_tick(now_ns, interval_ns) - now_ns) / 1_000_000_000)


def main(arguments: Sequence[str] | None = None) -> None:
    """Sample until told to end, or until nothing is left to do."""
    options = _parse(arguments)
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGINT, _end)
    writer = RowWriter(sys.stdout.fileno())
    readers = [
        threading.Thread(
            target=follow,
            args=(ProcessReader(options.proc_root, pid), writer, options.interval_ms * 1_000_000),
            daemon=True,
        )
        for pid in dict.fromkeys(options.pid)
    ]
    try:
        for thread in readers:
            thread.start()
        for thread in readers:
            thread.join()
    finally:
        writer.close()


def _end(_number: int, _frame: FrameType | None) -> None:
    sys.exit(0)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="process_sampler", description=__doc__)
    parser.add_argument("--pid", type=int, nargs="+", required=True, metavar="P")
    parser.add_argument("--interval-ms", type=int, default=100)
    parser.add_argument("--proc-root", default="/proc")
    options = parser.parse_args(arguments)
    if len(options.pid) > MAX_PIDS:
        parser.error(f"at most {MAX_PIDS} processes")
    if options.interval_ms < 1:
        parser.error("--interval-ms is at least 1")
    return options


if __name__ == "__main__":
    main()
