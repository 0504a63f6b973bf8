"""The line of progress, on a real pseudo-terminal."""

import fcntl
import io
import os
import re
import struct
import subprocess
import termios
import threading

import pytest

from shipper.inspection.progress import Progress
from tests.shipper_support import add_bundle, new_spool, shipper_command


class Terminal:
    """A pseudo-terminal, and what a person would see on it."""

    def __init__(self, columns=120):
        self._master, slave = os.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self.stream = os.fdopen(slave, "w")
        os.set_blocking(self._master, False)
        self._raw = ""

    def close(self):
        self.stream.close()
        os.close(self._master)

    def frames(self):
        """Each state of the line, in order."""
        try:
            while data := os.read(self._master, 1 << 16):
                self._raw += data.decode()
        except (BlockingIOError, OSError):
            pass
        return re.split("\r\x1b\\[K", self._raw)[1:]


@pytest.fixture
def terminal():
    terminal = Terminal()
    yield terminal
    terminal.close()


@pytest.fixture
def clock():
    return [100.0]


def test_line_tells_bundles_bytes_rate_and_time_left(terminal, clock):
    with Progress(4, 4096, terminal.stream, lambda: clock[0]) as progress:
        clock[0] += 2
        progress.advance(1024)
    empty, begun, gone = terminal.frames()
    assert empty == "[....................] 0/4 bundles, 0 B of 4 KiB"
    assert begun == "[#####...............] 1/4 bundles, 1 KiB of 4 KiB, 512 B/s, 6 s left"
    assert gone == ""


def test_without_bytes_it_goes_by_bundles(terminal, clock):
    with Progress(10, 0, terminal.stream, lambda: clock[0]) as progress:
        clock[0] += 1
        progress.advance(5)
    assert terminal.frames()[1] == "[##..................] 1/10 bundles, 1/s, 9 s left"


def test_more_than_was_expected_is_no_nonsense(terminal, clock):
    with Progress(1, 10, terminal.stream, lambda: clock[0]) as progress:
        for _ in range(2):
            clock[0] += 1
            progress.advance(10)
    assert "] 2/2 bundles, 20 B of 20 B" in terminal.frames()[2]
    assert terminal.frames()[2].endswith(", 0 s left")


def test_it_is_redrawn_at_most_ten_times_a_second(terminal, clock):
    with Progress(1000, 0, terminal.stream, lambda: clock[0]) as progress:
        for _ in range(1000):
            clock[0] += 0.001
            progress.advance(0)
    assert 10 <= len(terminal.frames()) <= 13


def test_other_lines_come_between_clean(terminal, clock):
    with Progress(2, 0, terminal.stream, lambda: clock[0]) as progress, progress.hidden():
        terminal.stream.write("shipped\n")
    bar = "[....................] 0/2 bundles"
    assert terminal.frames() == [bar, "shipped\r\n", bar, ""]


def test_narrow_terminal_keeps_it_on_one_line(clock):
    terminal = Terminal(columns=30)
    try:
        with Progress(2, 10, terminal.stream, lambda: clock[0]):
            pass
        assert len(terminal.frames()[0]) == 29
    finally:
        terminal.close()


def test_it_is_silent_where_there_is_no_terminal():
    stream = io.StringIO()
    with Progress(2, 10, stream) as progress:
        progress.advance(5)
        with progress.hidden():
            pass
    assert stream.getvalue() == ""


def test_many_threads_count_every_bundle(terminal, clock):
    with Progress(800, 800, terminal.stream, lambda: clock[0]) as progress:
        threads = [
            threading.Thread(target=lambda: [progress.advance(1) for _ in range(100)])
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with progress.hidden():
            pass
    assert terminal.frames()[-2].startswith("[####################] 800/800 bundles, 800 B of")


def test_once_shows_it_beside_clean_lines(terminal, tmp_path):
    spool = new_spool(tmp_path / "spool")
    bundles = [add_bundle(spool) for _ in range(3)]
    config = tmp_path / "shipper.yaml"
    config.write_text(
        f"spool: {spool.root}\ndestination:\n  type: directory\n  path: {tmp_path / 'bucket'}\n"
    )
    result = subprocess.run(
        shipper_command("once", "--config", config),
        stdout=subprocess.PIPE,
        stderr=terminal.stream,
        text=True,
        timeout=120,
        check=True,
    )
    frames = terminal.frames()
    assert frames[0] == "[....................] 0/3 bundles, 0 B of 24 B"
    assert any("3/3 bundles, 24 B of 24 B" in frame for frame in frames)
    assert frames[-1] == ""
    lines = result.stdout.splitlines()
    assert sorted(line.split()[1] for line in lines[:3]) == sorted(one.id for one in bundles)
    assert lines[3] == "3 shipped, 0 left"
