"""Drain and detect per event: NumPy over the mapped ring against bcc's callback per event.

Both sides read a real ring in this machine's kernel, filled with the same events, and apply the
same rules. The baseline is what a bcc tool does: a Python callback for every record.
"""

from __future__ import annotations

import ctypes
import os
import statistics
import time
from collections import deque
from collections.abc import Callable

from agent.anomaly_types.reconnect import ReconnectRule
from agent.detection.event_batch import EventBatch
from agent.events.flight_recorder import FlightRecorder
from agent.kernel.ring_buffer import RingReader
from bpf.headers import find_headers
from tests.bench.figure import Figure
from tests.rules import error_rule, handler_of, latency_rule, stall_rule

EVENTS = 14_000
ROUNDS = 9
BATCHES = 20
WINDOW_NS = 1_000_000_000
COUNT = 10
LIMIT_MS = 50
ERRNO = 13

BURST = 250
MAGIC = 0x0A0D

# Fills the ring at the kernel's own speed: a call of getpriority(2) makes a burst of events.
FILL = f"""
#include "smb.h"
BPF_RINGBUF_OUTPUT(events, 256);
BPF_ARRAY(sequence, u64, 1);

int fill(struct tracepoint__syscalls__sys_enter_getpriority *args)
{{
	u32 first = 0;
	u64 *next = sequence.lookup(&first);

	if (args->which != {MAGIC} || !next)
		return 0;
	for (int i = 0; i < {BURST}; i++) {{
		struct smb_event *event = events.ringbuf_reserve(sizeof(*event));

		if (!event)
			return 0;
		__builtin_memset(event, 0, sizeof(*event));
		*next += 1;
		event->cmd_end_time_ns = *next * 200000000ULL;
		event->metric_latency_ns = 60000000 + (*next & 0xFFFFF);
		event->smbcommand = 8 + (*next & 1);
		event->retval = *next % 64 ? 0 : -13;
		event->tool = 1;
		events.ringbuf_submit(event, BPF_RB_NO_WAKEUP);
	}}
	return 0;
}}
"""


def measure() -> list[Figure]:
    """Nanoseconds per event on both sides, and their ratio, medians of pairs."""
    ring = KernelRing()
    vectorised, callback = Vectorised(ring), Callback(ring)
    pairs = [(storm(ring, vectorised.drain), storm(ring, callback.drain)) for _ in range(ROUNDS)]
    assert vectorised.seen == callback.seen == ROUNDS * BATCHES * EVENTS
    assert vectorised.found == callback.found == 0
    ours = statistics.median(pair[0] for pair in pairs)
    theirs = statistics.median(pair[1] for pair in pairs)
    ratio = statistics.median(theirs / ours for ours, theirs in pairs)
    return [
        Figure(f"drain + detect, per event in batches of {EVENTS:,}", ours, "ns", "15 or less"),
        Figure("bcc callback with the same rules, per event", theirs, "ns"),
        Figure("ratio", ratio, "x", "50 or more"),
    ]


def storm(ring: KernelRing, drain: Callable[[], None]) -> float:
    """Nanoseconds per event of draining, over batches that follow each other closely."""
    elapsed = 0
    for _ in range(BATCHES):
        ring.fill(EVENTS)
        started = time.perf_counter_ns()
        drain()
        elapsed += time.perf_counter_ns() - started
    return elapsed / (BATCHES * EVENTS)


class KernelRing:
    """A real BPF ring with a program that fills it."""

    def __init__(self) -> None:
        import mmap

        from bcc import BPF  # Debian's python3-bpfcc

        from bpf.probe_set import SOURCE_DIRECTORY

        headers = find_headers()
        headers.select()
        self.bpf = BPF(text=FILL, cflags=[f"-I{SOURCE_DIRECTORY}", *headers.flags])
        os.environ.pop("BCC_KERNEL_SOURCE", None)  # the choice was for this compilation
        self.bpf.attach_tracepoint("syscalls:sys_enter_getpriority", fn_name="fill")
        self.table = self.bpf["events"]
        size = 256 * mmap.PAGESIZE
        self.consumer = mmap.mmap(self.table.map_fd, mmap.PAGESIZE)
        self.producer = mmap.mmap(
            self.table.map_fd, mmap.PAGESIZE + 2 * size, prot=mmap.PROT_READ, offset=mmap.PAGESIZE
        )
        self.reader = RingReader(self.consumer, self.producer, size)
        self._libc = ctypes.CDLL(None)

    def fill(self, count: int) -> None:
        """Put ``count`` events in."""
        for _ in range(count // BURST):
            self._libc.getpriority(MAGIC, 0)
        assert self.reader.pending() == count


class Vectorised:
    """The agent's way: one copy into the flight recorder, then the detectors."""

    def __init__(self, ring: KernelRing) -> None:
        self._reader = ring.reader
        self._recorder = FlightRecorder(65_536)
        latency = {command: float(LIMIT_MS) for command in range(20)}
        rules = [
            latency_rule(COUNT, latency),
            error_rule(COUNT, {ERRNO}),
            stall_rule(),
            ReconnectRule(name="lost"),
        ]
        self._handlers = [handler_of(rule, WINDOW_NS) for rule in rules]
        self.seen = 0
        self.found = 0

    def drain(self) -> None:
        self._reader.drain(self._recorder.append, 1 << 20)
        while self.seen < self._recorder.appended:
            events = self._recorder.view(self.seen, self._recorder.appended)
            self.seen += len(events)
            batch = EventBatch.of(events)
            for handler in self._handlers:
                self.found += len(handler.detect(batch))
            self._recorder.release(self.seen)


class Callback:
    """A bcc tool's way: a Python function for every record."""

    def __init__(self, ring: KernelRing) -> None:
        self._bpf = ring.bpf
        self._table = ring.table
        self._table.open_ring_buffer(self._on_event)
        self._limits = [LIMIT_MS * 1_000_000] * 20
        self._slow: deque[int] = deque(maxlen=COUNT)
        self._failed: deque[int] = deque(maxlen=COUNT)
        self.seen = 0
        self.found = 0

    def drain(self) -> None:
        self._bpf.ring_buffer_consume()

    def _on_event(self, _context: object, data: int, _size: int) -> None:
        event = self._table.event(data)
        self.seen += 1
        if event.metric_latency_ns >= self._limits[event.smbcommand]:
            self._count(self._slow, event.cmd_end_time_ns)
        if event.retval == -ERRNO:
            self._count(self._failed, event.cmd_end_time_ns)

    def _count(self, times: deque[int], time_ns: int) -> None:
        times.append(time_ns)
        if len(times) == COUNT and time_ns - times[0] <= WINDOW_NS:
            self.found += 1
