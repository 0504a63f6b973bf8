"""Copy and detection per event: the agent's way against bcc's callback for every event.

Both sides read a real ring in this machine's kernel, filled with the same events, and apply the
same rules. The baseline is what a bcc tool does: a Python function for every record. What counts is
the thread's CPU time, which other work on the machine disturbs less than the clock on the wall.
"""

from __future__ import annotations

import mmap
import os
import statistics
import time
from collections import deque
from dataclasses import dataclass, replace

from agent.anomaly_types.drift import DriftRule
from agent.anomaly_types.reconnect import ReconnectRule
from agent.cifs.state import CifsTexts
from agent.config_loader import load_config
from agent.configuration.schema import Config, GuardianConfig
from agent.detection.anomaly_watcher import AnomalyWatcher
from agent.events.event_source import Snapshot, empty_snapshot
from agent.events.flight_recorder import FlightRecorder
from agent.kernel.kernel_filter import kernel_settings
from agent.kernel.ring_buffer import RingReader
from agent.service.audit import Audit
from bpf import abi
from bpf.headers import find_headers
from bpf.probe_set import CORE, SOURCE_DIRECTORY
from tests.bench.figure import Figure
from tests.ebpf_host import OPTION, burst
from tests.live_agent import CONFIG
from tests.prctl_loader import TEST_SOURCE
from tests.rules import error_rule, latency_rule, stall_rule

EVENTS = 14_000
RING_PAGES = 256
ROUNDS = 9
BATCHES = 20
# A window that is never complete is the dearest: then every violation is compared.
WINDOW_NS = 1
COUNT = 10
LIMIT_MS = 50
LATENCY_NS = 60_000_000
ERRNO = 13


def measure() -> list[Figure]:
    """Nanoseconds per event on both sides, and their ratio, medians of pairs."""
    config = every_type(load_config(CONFIG).config)
    ring = KernelRing(config)
    ours, theirs = AgentsWay(ring, config), CallbackWay(ring)
    pairs = [(ours.round(), theirs.round()) for _ in range(ROUNDS)]
    assert ours.watcher.position == theirs.seen == ROUNDS * BATCHES * EVENTS
    assert ours.watcher.incidents.opened == theirs.found == 0
    copy = statistics.median(own.copy_ns for own, _ in pairs)
    detect = statistics.median(own.detect_ns for own, _ in pairs)
    callback = statistics.median(other for _, other in pairs)
    ratio = statistics.median(other / own.total_ns for own, other in pairs)
    detect_ratio = statistics.median(other / own.detect_ns for own, other in pairs)
    return [
        Figure(f"detection, every rule type, per event of {EVENTS:,}", detect, "ns", "15 or less"),
        Figure("copy from the ring, per event", copy, "ns"),
        Figure("both together", statistics.median(own.total_ns for own, _ in pairs), "ns"),
        Figure("bcc callback with the same rules, per event", callback, "ns"),
        Figure("ratio to both together", ratio, "x", "50 or more"),
        Figure("ratio to detection", detect_ratio, "x"),
    ]


def every_type(config: Config) -> Config:
    """``config`` with a rule of each type that no event here completes."""
    rules = [
        latency_rule(COUNT, {command: float(LIMIT_MS) for command in range(20)}),
        error_rule(COUNT, {ERRNO}),
        stall_rule(),
        ReconnectRule(name="lost"),
        DriftRule(name="drifting", commands=frozenset(range(20))),
    ]
    guardian = GuardianConfig({rule.name: rule for rule in rules})
    return replace(config, guardian=guardian, watch_interval_sec=WINDOW_NS / 1e9)


class KernelRing:
    """A real ring with the program of smb.c on this machine's kernel; see `tests.ebpf_host`."""

    def __init__(self, config: Config) -> None:
        from bcc import BPF  # Debian's python3-bpfcc

        headers = find_headers()
        headers.select()
        flags = [f"-DAOD_RING_PAGES={RING_PAGES}", "-DAOD_COMPOUND", f"-DTEST_OPTION={OPTION}"]
        self.bpf = BPF(
            text="\n".join(source.read_text() for source in (*CORE, TEST_SOURCE)),
            cflags=[f"-I{SOURCE_DIRECTORY}", *flags, *headers.flags],
        )
        os.environ.pop("BCC_KERNEL_SOURCE", None)  # the choice was for this compilation
        self.bpf.attach_tracepoint("syscalls:sys_enter_prctl", fn_name="on_prctl")
        self.table = self.bpf["events"]
        settings = mmap.mmap(self.bpf["settings"].map_fd, mmap.PAGESIZE)
        settings[: abi.SETTINGS.itemsize] = kernel_settings(
            config.guardian.anomalies.values()
        ).tobytes()
        size = RING_PAGES * mmap.PAGESIZE
        self.consumer = mmap.mmap(self.table.map_fd, mmap.PAGESIZE)
        self.producer = mmap.mmap(
            self.table.map_fd, mmap.PAGESIZE + 2 * size, prot=mmap.PROT_READ, offset=mmap.PAGESIZE
        )
        self.reader = RingReader(self.consumer, self.producer, size)

    def fill(self) -> None:
        """Put `EVENTS` in."""
        burst(EVENTS, LATENCY_NS, ERRNO)
        assert self.reader.pending() == EVENTS


@dataclass(frozen=True)
class Cost:
    """Nanoseconds per event."""

    copy_ns: float
    detect_ns: float

    @property
    def total_ns(self) -> float:
        """From the ring to the verdict."""
        return self.copy_ns + self.detect_ns


class AgentsWay:
    """One copy into the flight recorder, then the `AnomalyWatcher`, as its thread runs it."""

    def __init__(self, ring: KernelRing, config: Config) -> None:
        self._ring = ring
        self._recorder = FlightRecorder(65_536)
        self._recorder.close()  # so that the watcher returns when it has seen all there is
        self.watcher = AnomalyWatcher(
            config, self._recorder, NoSource(), lambda action: True, Audit(enabled=False)
        )

    def round(self) -> Cost:
        """The median of batches that follow each other closely."""
        copy_ns, detect_ns = [], []
        for _ in range(BATCHES):
            self._ring.fill()
            started = time.thread_time_ns()
            self._ring.reader.drain(self._recorder.append, EVENTS)
            copied = time.thread_time_ns()
            self.watcher.run()
            detect_ns.append(time.thread_time_ns() - copied)
            copy_ns.append(copied - started)
        return Cost(statistics.median(copy_ns) / EVENTS, statistics.median(detect_ns) / EVENTS)


class NoSource:
    """A source whose memory is empty: what looks cost is not part of this."""

    sources_opened = 1

    def clock_ns(self) -> int | None:
        return None

    def end_ns(self) -> int | None:
        return None

    def arm_bell(self, at_ns: int) -> int | None:
        return None

    def bell_armed(self) -> bool:
        return True

    def cifs_texts(self, at_ns: int) -> CifsTexts:
        return CifsTexts("", "", "nothing is watched")

    def snapshot(self, at_ns: int | None = None) -> Snapshot:
        return empty_snapshot()


class CallbackWay:
    """A bcc tool's way: a Python function for every record."""

    def __init__(self, ring: KernelRing) -> None:
        self._ring = ring
        ring.table.open_ring_buffer(self._on_event)
        self._limits = [LIMIT_MS * 1_000_000] * 20
        self._slow: deque[int] = deque(maxlen=COUNT)
        self._failed: deque[int] = deque(maxlen=COUNT)
        self.seen = 0
        self.found = 0

    def round(self) -> float:
        """Nanoseconds per event, the median of batches."""
        elapsed_ns = []
        for _ in range(BATCHES):
            self._ring.fill()
            started = time.thread_time_ns()
            self._ring.bpf.ring_buffer_consume()
            elapsed_ns.append(time.thread_time_ns() - started)
        return statistics.median(elapsed_ns) / EVENTS

    def _on_event(self, _context: object, data: int, _size: int) -> None:
        event = self._ring.table.event(data)
        self.seen += 1
        if event.metric_latency_ns >= self._limits[event.smbcommand]:
            self._count(self._slow, event.cmd_end_time_ns)
        if event.retval == -ERRNO:
            self._count(self._failed, event.cmd_end_time_ns)

    def _count(self, times: deque[int], time_ns: int) -> None:
        times.append(time_ns)
        if len(times) == COUNT and time_ns - times[0] <= WINDOW_NS:
            self.found += 1
