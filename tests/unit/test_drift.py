"""Drift, and when it and others look: on a kernel's memory made by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from agent.anomaly_types.drift import DriftRule
from agent.cifs.state import NO_STATE
from agent.detection.anomaly_handler import AnomalyHandler
from agent.detection.latency_history import LatencyHistory
from agent.detection.look_schedule import LookSchedule
from agent.detection.sight import Sight
from agent.events.event_source import Snapshot, empty_snapshot
from tests.rules import handler_of, stall_rule

SECOND = 1_000_000_000
READ = 8
FAST, SLOW = 21, 27  # buckets of 1 to 2 ms and of 67 to 134 ms


class Kernel:
    """Its running histograms, and a bell."""

    def __init__(self) -> None:
        self.now = empty_snapshot()
        self.armed = 0

    def run(self, bucket: int, count: int = 100) -> None:
        self.now.histograms[READ, bucket] += np.uint64(count)

    def snapshot(self, at_ns: int | None = None) -> Snapshot:
        return replace(self.now, histograms=self.now.histograms.copy())

    def arm_bell(self, at_ns: int) -> int | None:
        self.armed += 1
        return None

    def bell_armed(self) -> bool:
        return bool(self.armed)


def drift(**settings: float) -> AnomalyHandler:
    known = {"recent_sec": 6, "baseline_sec": 600, **settings}
    return handler_of(DriftRule(name="drift", commands=frozenset({READ}), **known))


def found(handler: AnomalyHandler, kernel: Kernel, second: int) -> bool:
    sight = Sight(second * SECOND, kernel.snapshot(), lambda: NO_STATE)
    return bool(handler.look(sight))


def test_several_times_the_usual_is_found_and_the_usual_is_not() -> None:
    handler, kernel = drift(), Kernel()
    for second in range(30):
        kernel.run(FAST)
        assert not found(handler, kernel, second)
    seen = []
    for second in range(30, 40):
        kernel.run(SLOW)
        seen.append(found(handler, kernel, second))
    assert not seen[0]
    assert seen[-1]


def test_what_has_drifted_stays_out_of_the_usual_for_a_while_only() -> None:
    for baseline_sec, lasts in ((600, True), (20, False)):
        handler, kernel = drift(baseline_sec=baseline_sec), Kernel()
        for second in range(200):
            kernel.run(FAST if second < 30 else SLOW)
            last = found(handler, kernel, second)
        assert last is lasts


def test_too_few_commands_or_too_small_a_shift_is_no_drift() -> None:
    for settings, count in (({}, 5), ({"minimum_shift_ms": 500}, 100)):
        handler, kernel = drift(**settings), Kernel()
        for second in range(60):
            kernel.run(FAST if second < 30 else SLOW, count)
            assert not found(handler, kernel, second)


def test_a_program_loaded_anew_counts_from_zero() -> None:
    history, kernel = LatencyHistory(6 * SECOND, 60 * SECOND), Kernel()
    kernel.run(FAST)
    history.add(0, kernel.snapshot().histograms)
    history.add(SECOND, empty_snapshot().histograms)
    assert history.recent().sum() == 0


def test_commands_after_a_silence_are_recent() -> None:
    history, kernel = LatencyHistory(6 * SECOND, 60 * SECOND), Kernel()
    history.add(0, kernel.snapshot().histograms)
    kernel.run(SLOW)
    history.add(100 * SECOND, kernel.snapshot().histograms)
    assert history.recent()[READ, SLOW] == 100


def schedule(kernel: Kernel, *handlers: AnomalyHandler) -> LookSchedule:
    looks = LookSchedule(kernel, lambda at_ns: NO_STATE)
    looks.serve(handlers)
    return looks


def test_the_bell_is_armed_only_after_a_rest_without_commands() -> None:
    kernel = Kernel()
    looks = schedule(kernel, handler_of(stall_rule(10)))
    looks.look(SECOND)
    kernel.run(FAST, 1)
    looks.look(2 * SECOND)
    assert (looks.due_ns, kernel.armed) == (7 * SECOND, 0)
    looks.look(7 * SECOND)
    assert (looks.due_ns, kernel.armed) == (None, 1)
    looks.notice_bell(8 * SECOND)
    assert looks.due_ns is None
    kernel.armed = 0
    looks.notice_bell(9 * SECOND)
    assert looks.due_ns == 9 * SECOND


def test_without_a_detector_that_looks_nothing_is_due() -> None:
    looks = schedule(Kernel())
    looks.notice_bell(SECOND)
    assert looks.due_ns is None


def test_drift_is_looked_at_in_time_beside_a_rule_for_hangs() -> None:
    kernel = Kernel()
    kernel.now = replace(kernel.now, inflight=waiting(start_ns=SECOND))
    looks = schedule(kernel, handler_of(stall_rule(60)), drift())
    looks.look(SECOND)
    kernel.run(FAST)
    looks.look(2 * SECOND)
    assert looks.due_ns == 3 * SECOND


def waiting(start_ns: int) -> np.ndarray:
    slots = np.zeros(1, empty_snapshot().inflight.dtype)
    slots["start_ns"], slots["smbcommand"] = start_ns, READ
    return slots
