"""The kernel's memory at any moment of a trace, from what the trace holds."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from agent.cifs.state import CifsTexts
from agent.events.trace import Look, Trace
from bpf import abi


class TraceMemory:
    """Which commands were under way is told by the answered ones, whose start is their end less
    their latency, and by the recorder's looks, which also saw those that never were answered.

    All times are those of the trace.
    """

    def __init__(self, trace: Trace) -> None:
        commands = trace.events[trace.events["smbcommand"] != abi.NO_COMMAND]
        self._commands = commands[np.argsort(commands["cmd_end_time_ns"], kind="stable")]
        self._ends = self._commands["cmd_end_time_ns"].astype(np.int64)
        self._looks = trace.looks
        self._waiting, self._last_seen = self._all_waiting()
        self._starts = np.sort(self._waiting["start_ns"].astype(np.int64))
        self._reconnects = trace.events[(trace.events["tool"] & abi.TOOL_RECONNECT) > 0]
        times = trace.events["cmd_end_time_ns"].astype(np.int64)
        self.begin_ns = int(times.min()) if len(times) else 0
        looks_end = max((look.time_ns for look in self._looks), default=0)
        self.end_ns = max(int(times.max()) if len(times) else 0, looks_end)

    def ended_before(self, time_ns: int) -> NDArray[np.void]:
        """The commands answered until then."""
        ended: NDArray[np.void] = self._commands[
            : np.searchsorted(self._ends, time_ns, side="right")
        ]
        return ended

    def inflight(self, time_ns: int) -> NDArray[np.void]:
        """`bpf.abi.INFLIGHT` records of the commands under way at that moment."""
        begun = self._waiting["start_ns"] <= time_ns
        under_way: NDArray[np.void] = self._waiting[begun & (self._last_seen > time_ns)]
        return under_way

    def next_start_ns(self, time_ns: int) -> int | None:
        """When the first command after that moment started."""
        place = int(np.searchsorted(self._starts, time_ns, side="right"))
        return int(self._starts[place]) if place < len(self._starts) else None

    def cifs_texts(self, time_ns: int) -> CifsTexts:
        """What the kernel said at the look nearest to that moment."""
        if not self._looks:
            return CifsTexts("", "", "the trace has no look at DebugData")
        return min(self._looks, key=lambda look: abs(look.time_ns - time_ns)).texts

    def hosts(self) -> dict[int, str]:
        """Host names of the connections that were lost, as far as a record holds them."""
        return {
            int(event["session_id"]): bytes(event["task"]).decode("utf-8", "replace")
            for event in self._reconnects
        }

    def _all_waiting(self) -> tuple[NDArray[np.void], NDArray[np.int64]]:
        """Every command as a record of the table, and until when it stood there."""
        answered = np.zeros(len(self._commands), abi.INFLIGHT)
        for name in ("session_id", "mid", "pid", "tree_id", "smbcommand", "is_compounded", "task"):
            answered[name] = self._commands[name]
        answered["start_ns"] = self._commands["cmd_end_time_ns"] - np.minimum(
            self._commands["metric_latency_ns"], self._commands["cmd_end_time_ns"]
        )
        lost, seen = _never_answered(self._looks, answered)
        return np.concatenate([answered, lost]), np.concatenate([self._ends, seen])


def _never_answered(
    looks: tuple[Look, ...], answered: NDArray[np.void]
) -> tuple[NDArray[np.void], NDArray[np.int64]]:
    """Commands that looks saw and that have no answer, and when each was seen last."""
    known = {_key(record) for record in answered}
    last: dict[tuple[int, int, int], tuple[np.void, int]] = {}
    for look in looks:
        for record in look.inflight:
            if _key(record) not in known:
                last[_key(record)] = (record, look.time_ns + 1)
    if not last:
        return np.zeros(0, abi.INFLIGHT), np.zeros(0, np.int64)
    records, seen = zip(*last.values(), strict=True)
    return np.array(list(records), abi.INFLIGHT), np.array(seen, np.int64)


def _key(record: np.void) -> tuple[int, int, int]:
    return int(record["session_id"]), int(record["mid"]), int(record["start_ns"])
