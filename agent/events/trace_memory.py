"""The kernel's memory at any moment of a trace, from what the trace holds."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from agent.cifs.state import CifsTexts
from agent.events.trace import Look, Trace
from agent.events.trace_totals import TraceTotals
from bpf import abi


class TraceMemory:
    """Which commands were under way is told by the answered ones, whose start is their end less
    their latency, and by the recorder's looks, which also saw those that never were answered.

    All times are those of the trace. Beside the trace it takes 24 bytes of memory for a command;
    a question costs as much as there is to answer, however long the trace is.
    """

    def __init__(self, trace: Trace) -> None:
        self._commands = _in_order_of_end(trace.events)
        self._ends = self._commands["cmd_end_time_ns"].astype(np.int64)
        starts = _starts(self._commands)
        # Of a command and all that ended after it the earliest start: it never falls, so there is
        # one place behind which nothing had started yet.
        self._earliest = np.minimum.accumulate(starts[::-1])[::-1]
        self._looks = trace.looks
        self._look_times = np.array([look.time_ns for look in trace.looks], np.int64)
        self._lost, self._last_seen = _never_answered(trace.looks, self._commands, starts)
        self._starts = np.concatenate([starts, self._lost["start_ns"].astype(np.int64)])
        self._starts.sort()
        self._totals = TraceTotals(self._commands)
        self._reconnects = trace.events[(trace.events["tool"] & abi.TOOL_RECONNECT) > 0]
        times = trace.events["cmd_end_time_ns"]
        self.begin_ns = int(times.min()) if len(times) else 0
        looks_end = int(self._look_times.max()) if len(self._looks) else 0
        self.end_ns = max(int(times.max()) if len(times) else 0, looks_end)

    def totals(self, time_ns: int) -> tuple[NDArray[np.uint64], NDArray[np.void]]:
        """Histograms (COMMANDS, BUCKETS) and activity of the commands answered until then."""
        return self._totals.after(self._answered(time_ns))

    def inflight(self, time_ns: int) -> NDArray[np.void]:
        """`bpf.abi.INFLIGHT` records of the commands under way at that moment."""
        first = self._answered(time_ns)
        end = int(np.searchsorted(self._earliest, time_ns, side="right"))
        later = self._commands[first : max(first, end)]
        waiting = _as_inflight(later[_starts(later) <= time_ns])
        lost = self._lost[(self._lost["start_ns"] <= time_ns) & (self._last_seen > time_ns)]
        return np.concatenate([waiting, lost])

    def next_start_ns(self, time_ns: int) -> int | None:
        """When the first command after that moment started."""
        place = int(np.searchsorted(self._starts, time_ns, side="right"))
        return int(self._starts[place]) if place < len(self._starts) else None

    def cifs_texts(self, time_ns: int) -> CifsTexts:
        """What the kernel said at the look nearest to that moment."""
        if not self._looks:
            return CifsTexts("", "", "the trace has no look at DebugData")
        return self._looks[int(np.argmin(np.abs(self._look_times - time_ns)))].texts

    def hosts(self) -> dict[int, str]:
        """Host names of the connections that were lost, as far as a record holds them."""
        return {
            int(event["session_id"]): bytes(event["task"]).decode("utf-8", "replace")
            for event in self._reconnects
        }

    def _answered(self, time_ns: int) -> int:
        return int(np.searchsorted(self._ends, time_ns, side="right"))


def _in_order_of_end(events: NDArray[np.void]) -> NDArray[np.void]:
    """The commands among ``events``; no copy where they stand like that already."""
    is_command = events["smbcommand"] != abi.NO_COMMAND
    commands: NDArray[np.void] = events if is_command.all() else events[is_command]
    ends = commands["cmd_end_time_ns"]
    if (ends[1:] < ends[:-1]).any():
        commands = commands[np.argsort(ends, kind="stable")]
    return commands


def _starts(commands: NDArray[np.void]) -> NDArray[np.int64]:
    ends = commands["cmd_end_time_ns"]
    starts: NDArray[np.int64] = (ends - np.minimum(commands["metric_latency_ns"], ends)).view(
        np.int64
    )
    return starts


def _as_inflight(commands: NDArray[np.void]) -> NDArray[np.void]:
    """The records the kernel's table had for them."""
    records = np.zeros(len(commands), abi.INFLIGHT)
    for name in ("session_id", "mid", "pid", "tree_id", "smbcommand", "is_compounded", "task"):
        records[name] = commands[name]
    records["start_ns"] = _starts(commands)
    return records


def _never_answered(
    looks: tuple[Look, ...], commands: NDArray[np.void], starts: NDArray[np.int64]
) -> tuple[NDArray[np.void], NDArray[np.int64]]:
    """Commands that looks saw and that have no answer, and when each was seen last."""
    seen_starts = [look.inflight["start_ns"].astype(np.int64) for look in looks]
    candidates = np.isin(starts, np.concatenate([np.zeros(0, np.int64), *seen_starts]))
    answered = {_key(record) for record in _as_inflight(commands[candidates])}
    last: dict[tuple[int, int, int], tuple[np.void, int]] = {}
    for look in looks:
        for record in look.inflight:
            if _key(record) not in answered:
                last[_key(record)] = (record, look.time_ns + 1)
    if not last:
        return np.zeros(0, abi.INFLIGHT), np.zeros(0, np.int64)
    records, seen = zip(*last.values(), strict=True)
    # A tuple would be taken for one record of so many members.
    return np.array(list(records), abi.INFLIGHT), np.array(seen, np.int64)


def _key(record: np.void) -> tuple[int, int, int]:
    return int(record["session_id"]), int(record["mid"]), int(record["start_ns"])
