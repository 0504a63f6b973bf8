"""Real eBPF on this machine's own kernel: the program of smb.c, driven by prctl(2) calls.

Tests import the fixtures they use. Without root, bcc or headers they skip, and fail in CI.
"""

from __future__ import annotations

import ctypes
import importlib.util
import itertools
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from agent.kernel.probe import MAPS, Probe, load_probe
from agent.kernel.ring_buffer import RingReader
from bpf import abi
from bpf.headers import find_headers
from bpf.load_fault import LoadFault
from tests.requirements import skip_or_fail

OPTION = 0x41000000 | (os.getpid() & 0xFFFFFF)
PRCTL_LOADER = (
    sys.executable,
    str(Path(__file__).with_name("prctl_loader.py")),
    "--option",
    str(OPTION),
)
TRACEFS = Path("/sys/kernel/tracing")
BPF_SYSCALL = {"x86_64": 321, "aarch64": 280}
BPF_PROG_GET_FD_BY_ID = 13
ENTER, FINISH, FAIL, COMPOUND, RECONNECT, BURST = 1, 2, 3, 4, 5, 6
MOST_BURST = 250
TEST_HOST = "files.department.example"
DEADLINE_SEC = 60

libc = ctypes.CDLL(None, use_errno=True)


def obstacle() -> str:
    """Why real eBPF cannot be tested here; empty when it can."""
    if os.geteuid() != 0:
        return "needs root"
    if importlib.util.find_spec("bcc") is None:
        return "needs python3-bpfcc and an environment with the system's packages"
    try:
        find_headers()
    except LoadFault as fault:
        return f"{fault.message}: {fault.remedy}"
    if platform.machine() not in BPF_SYSCALL:
        return f"does not know the number of bpf(2) on {platform.machine()}"
    return ""


@pytest.fixture(scope="session")
def ebpf_host() -> None:
    """This machine can load eBPF programs; tracefs is mounted."""
    reason = obstacle()
    if reason:
        skip_or_fail(reason)
    if not (TRACEFS / "events").is_dir():
        subprocess.run(["mount", "-t", "tracefs", "nodev", str(TRACEFS)], check=True)


@pytest.fixture(scope="module")
def shared_probe(ebpf_host: None) -> Iterator[Probe]:
    loaded = load_probe(command=PRCTL_LOADER)
    yield loaded
    loaded.close()


@pytest.fixture
def kernel(shared_probe: Probe) -> Kernel:
    """A loaded program with nothing in its memory."""
    kernel = Kernel(shared_probe)
    kernel.forget()
    return kernel


class Kernel:
    """Plays the SMB client: starts and ends commands, and reads what the program made of them."""

    def __init__(self, probe: Probe) -> None:
        self.probe = probe
        self._reader = RingReader(probe.ring_consumer, probe.ring_producer, probe.ring_size)
        self._mids = itertools.count(1)

    def forget(self) -> None:
        self.events()
        for name in MAPS:
            memory = getattr(self.probe, name)
            memory[:] = np.zeros(1, memory.dtype)

    def next_mid(self) -> int:
        return next(self._mids)

    def enter(self, command: int, mid: int, session: int = 7, tree: int = 5) -> None:
        prctl(ENTER << 32 | command, session, mid, tree)

    def finish(
        self, command: int, mid: int, session: int = 7, tree: int = 5, errno: int = 0
    ) -> None:
        prctl(FINISH << 32 | errno << 16 | command, session, mid, tree)

    def fail(self, command: int, mid: int, status: int, errno: int, session: int = 7) -> None:
        prctl(FAIL << 32 | errno << 16 | command, session, mid, status << 32)

    def compound(self, members: int) -> None:
        prctl(COMPOUND << 32 | members, 0, 0, 0)

    def lose_connection(self, conn_id: int, mid: int = 0) -> None:
        """To TEST_HOST."""
        prctl(RECONNECT << 32, conn_id, mid, 0)

    def run(self, command: int, errno: int = 0) -> None:
        """One command from start to end."""
        mid = self.next_mid()
        self.enter(command, mid)
        self.finish(command, mid, errno=errno)

    def age(self, nanoseconds: int) -> None:
        """Make every unanswered command older."""
        unanswered = self.probe.inflight["start_ns"] != 0
        self.probe.inflight["start_ns"][unanswered] -= np.uint64(nanoseconds)

    def unanswered(self) -> NDArray[np.void]:
        return self.probe.inflight[self.probe.inflight["start_ns"] != 0]

    def events(self) -> NDArray[np.void]:
        """The waiting events; they are taken out of the ring."""
        batches: list[NDArray[np.uint64]] = []
        while self._reader.drain(lambda words: batches.append(words.copy()), 100_000):
            pass
        words = np.concatenate(batches) if batches else np.zeros((0, 8), np.uint64)
        return np.ascontiguousarray(words).view(abi.EVENT).reshape(-1)

    def counters(self) -> dict[str, int]:
        record = self.probe.counters[0]
        return {name: int(record[name]) for name in abi.COUNTERS.names or ()}

    def counted(self) -> dict[tuple[int, int], int]:
        """What stands in the histograms by (row, bucket)."""
        places = np.argwhere(self.probe.histograms)
        return {(int(r), int(b)): int(self.probe.histograms[r, b]) for r, b in places}


def prctl(second: int, third: int, fourth: int, fifth: int, option: int = OPTION) -> None:
    """A call that the kernel refuses, after the tracepoint has seen it."""
    values = (ctypes.c_ulong(value) for value in (second, third, fourth, fifth))
    assert libc.prctl(ctypes.c_int(option), *values) == -1


def burst(
    count: int, latency_ns: int, errno: int = 0, session: int = 7, option: int = OPTION
) -> None:
    """``count`` answers at the kernel's own speed, `MOST_BURST` by call: see prctl_probes.c."""
    for done in range(0, count, MOST_BURST):
        part = min(MOST_BURST, count - done)
        prctl(BURST << 32 | errno << 16 | part, session, latency_ns, 0, option)


def program_ids(probe: Probe) -> list[int]:
    """The kernel's numbers of the attached programs."""
    return [program_id(Path(f"/proc/self/fdinfo/{fd}")) for fd in probe.programs.values()]


def program_id(fdinfo: Path) -> int:
    line = next(line for line in fdinfo.read_text().splitlines() if line.startswith("prog_id:"))
    return int(line.split()[1])


def program_exists(number: int) -> bool:
    """Whether the kernel still holds a BPF program, attached or open anywhere."""
    attribute = (ctypes.c_uint32 * 32)(number)
    call = BPF_SYSCALL[platform.machine()]
    descriptor = libc.syscall(call, BPF_PROG_GET_FD_BY_ID, attribute, ctypes.sizeof(attribute))
    if descriptor >= 0:
        os.close(descriptor)
    return bool(descriptor >= 0)


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_SEC
    while not condition():
        assert time.monotonic() < deadline, f"not in {DEADLINE_SEC} s: {what}"
        time.sleep(0.01)
