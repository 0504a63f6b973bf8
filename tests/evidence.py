"""Makes the evidence of an incident for tests, and reads back what an audit recorded."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from agent.collection.quick_actions import QUICK_ACTIONS
from agent.detection.anomaly import Aftermath, AnomalyAction, Evidence, Trigger
from agent.detection.incidents import BundleOrder
from agent.service.audit import Audit
from agent.storage.ulid import new_ulid
from bpf.abi import BUCKETS, COMMANDS, EVENT, INFLIGHT
from tests.rules import latency_rule

READ, WRITE = 8, 9
BOOT_WALL_NS = 1_700_000_000_000_000_000
ALL_ACTIONS = tuple(action.name for action in QUICK_ACTIONS)


def make_events(count: int, seed: int = 1, failed_every: int = 0) -> NDArray[np.void]:
    """Slow reads and writes, one each millisecond; every ``failed_every``-th fails with EACCES."""
    random = np.random.default_rng(seed)
    events = np.zeros(count, EVENT)
    events["cmd_end_time_ns"] = 50_000_000_000 + np.arange(count, dtype=np.uint64) * 1_000_000
    events["metric_latency_ns"] = random.integers(20_000_000, 900_000_000, count)
    events["smbcommand"] = np.where(np.arange(count) % 2 == 0, READ, WRITE)
    events["session_id"] = 0xFFFF_8000_0000_0001
    events["tree_id"] = 5
    events["mid"] = np.arange(count)
    events["pid"] = 4242
    events["task"] = b"backup"
    events["tool"] = 1
    if failed_every:
        events["retval"][::failed_every] = -13
    return events


def make_inflight(starts_ns: list[int]) -> NDArray[np.void]:
    """Unanswered writes, with an empty slot after each."""
    slots = np.zeros(2 * len(starts_ns), INFLIGHT)
    slots["start_ns"][::2] = starts_ns
    slots["smbcommand"] = WRITE
    slots["pid"] = 77
    slots["task"] = b"stuck"
    return slots


def make_action(
    events: NDArray[np.void] | None = None,
    actions: tuple[str, ...] = (),
    bundle_id: str | None = None,
) -> AnomalyAction:
    """An order to collect for a latency anomaly, triggered by the last of ``events``."""
    records = make_events(20) if events is None else events
    time_ns = int(records["cmd_end_time_ns"][-1])
    histograms = np.zeros((COMMANDS, BUCKETS), np.uint64)
    histograms[READ, 25] = len(records)
    rule = latency_rule(5, {READ: 20.0}, name="latency", actions=actions)
    wall_ns = BOOT_WALL_NS + time_ns
    worst_ns = int(records["metric_latency_ns"].max())
    reason = f"{len(records)} slow commands"
    own_id = bundle_id or new_ulid(wall_ns // 1_000_000)
    return AnomalyAction(
        own_id,
        wall_ns,
        rule,
        Trigger(time_ns, reason, len(records), worst_ns, READ),
        Evidence(
            records,
            histograms,
            make_inflight([time_ns - 3_000_000_000, time_ns - 9_000_000_000]),
            {"events": len(records), "ring_full": 0},
            wall_offset_ns=BOOT_WALL_NS,
            source={"kind": "test"},
        ),
        BundleOrder(own_id, new_ulid(), 1, "server", time_ns),
        lambda: Aftermath(records[:0], histograms),
        live=True,
    )


class Journal:
    """A stand-in for the journal's socket: an `Audit` that writes to it, and what came."""

    def __init__(self, directory: Path) -> None:
        path = directory / "journal.socket"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.setblocking(False)
        self.audit = Audit(journal=path)

    def entries(self) -> list[dict[str, str]]:
        """Entries since the last call, values without newlines. The kernel holds about ten; what
        comes beyond is lost, so call it often enough."""
        found: list[dict[str, str]] = []
        while True:
            try:
                entry = self._socket.recv(1 << 16).decode()
            except BlockingIOError:
                return found
            found.append(dict(line.split("=", 1) for line in entry.splitlines()))

    def close(self) -> None:
        """Release the socket."""
        self._socket.close()


def wait_until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Return when ``condition`` holds; fail if it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.005)
