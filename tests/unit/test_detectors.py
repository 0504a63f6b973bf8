from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.configuration.schema import AnomalyConfig, AnomalyType
from agent.detection.event_batch import EventBatch
from agent.detection.incidents import IncidentTracker
from agent.detection.registry import ANOMALY_HANDLER_REGISTRY, AnomalyHandler
from agent.detection.sliding_count import SlidingCount
from bpf import abi

MS = 1_000_000
SECOND = 1_000 * MS
READ, WRITE, ECHO = 8, 9, 13
EACCES, EIO = 13, 5


def latency_handler(count: int = 3, **limits_ms: float) -> AnomalyHandler:
    track = {READ: 50.0, WRITE: 100.0}
    rule = AnomalyConfig("slow", AnomalyType.LATENCY, "smbslower", count, track, ())
    return ANOMALY_HANDLER_REGISTRY[AnomalyType.LATENCY](rule, SECOND)


def error_handler(count: int = 2) -> AnomalyHandler:
    track = {EACCES: None, EIO: None}
    rule = AnomalyConfig("failing", AnomalyType.ERROR, "smbiosnoop", count, track, ())
    return ANOMALY_HANDLER_REGISTRY[AnomalyType.ERROR](rule, SECOND)


def event(at_ms: float, command: int = READ, latency_ms: float = 60, retval: int = 0) -> np.ndarray:
    row = np.zeros(1, abi.EVENT)
    row["cmd_end_time_ns"] = int(at_ms * MS)
    row["smbcommand"] = command
    row["metric_latency_ns"] = int(latency_ms * MS)
    row["retval"] = retval
    row["pid"] = 4711
    row["task"] = b"dd"
    return row


def detect(handler: AnomalyHandler, events: np.ndarray) -> int | None:
    return handler.detect(EventBatch.of(events))


def feed(handler: AnomalyHandler, *events: np.ndarray) -> list[int | None]:
    """One detection per event, each in a batch of its own."""
    return [detect(handler, batch) for batch in events]


def test_every_anomaly_type_has_a_handler() -> None:
    assert set(ANOMALY_HANDLER_REGISTRY) == set(AnomalyType)


def test_latency_triggers_at_the_count_within_the_window_across_batches() -> None:
    found = feed(latency_handler(3), event(0), event(400), event(900), event(5_000))
    assert found == [None, None, 900 * MS, None]


def test_latency_ignores_violations_spread_wider_than_the_window() -> None:
    handler = latency_handler(3)
    assert feed(handler, *[event(at) for at in (0, 501, 1_002, 1_503, 2_004)]) == [None] * 5


def test_latency_uses_each_commands_own_limit_inclusively() -> None:
    handler = latency_handler(1)
    assert detect(handler, event(0, READ, 49.999)) is None
    assert detect(handler, event(1, READ, 50)) == 1 * MS
    assert detect(handler, event(2, WRITE, 99)) is None
    assert detect(handler, event(3, WRITE, 100)) == 3 * MS


def test_one_command_of_a_second_is_enough_but_only_a_watched_one() -> None:
    handler = latency_handler(100)
    assert detect(handler, event(0, READ, 999.9)) is None
    assert detect(handler, event(1, READ, 1_000)) == 1 * MS
    assert detect(handler, event(2, ECHO, 30_000)) is None
    assert detect(handler, event(3, 77, 30_000)) is None
    assert detect(handler, event(4, 65_535, 30_000)) is None


def test_latency_description_names_worst_command_limit_and_process() -> None:
    handler = latency_handler(2)
    events = np.concatenate([event(0, WRITE, 120), event(1, READ, 1_200), event(2, READ, 1)])
    time_ns = detect(handler, events)
    assert time_ns is not None
    trigger = handler.describe(EventBatch.of(events), time_ns)
    assert trigger.violations == 2
    assert trigger.worst_ns == 1_200 * MS
    for words in ("2 commands", "2 in 1 s", "SMB2_READ", "1.2 s", "limit 50 ms", "dd[4711]"):
        assert words in trigger.reason


def test_a_single_very_slow_command_is_described_as_what_it_is() -> None:
    handler = latency_handler(10)
    events = np.concatenate([event(0, READ, 1), event(1, WRITE, 2_500)])
    time_ns = detect(handler, events)
    assert time_ns == 1 * MS
    reason = handler.describe(EventBatch.of(events), time_ns).reason
    assert reason == "SMB2_WRITE took 2.5 s by dd[4711]; 1 s or more is always an anomaly"


def test_errors_count_only_tracked_codes() -> None:
    handler = error_handler(2)
    assert detect(handler, event(0, retval=-EACCES)) is None
    assert detect(handler, event(1, retval=-2)) is None
    assert detect(handler, event(2, retval=0)) is None
    assert detect(handler, event(3, retval=-EIO)) == 3 * MS


@pytest.mark.parametrize("retval", [EACCES, -512, -100_000, -(2**31), 2**31 - 1])
def test_results_outside_the_errno_table_are_no_errors(retval: int) -> None:
    assert detect(error_handler(1), event(0, retval=retval)) is None


def test_error_description_names_command_code_and_process() -> None:
    handler = error_handler(1)
    events = np.concatenate([event(0), event(1, 5, retval=-EACCES)])
    time_ns = detect(handler, events)
    assert time_ns == 1 * MS
    reason = handler.describe(EventBatch.of(events), time_ns).reason
    assert "SMB2_CREATE with EACCES by dd[4711]" in reason


def test_a_task_name_with_control_characters_stays_printable() -> None:
    handler = error_handler(1)
    events = event(0, retval=-EIO)
    events["task"] = b"\x1b[31mred\xff\n"
    assert handler.describe(EventBatch.of(events), 0).reason.isprintable()


def plain_sliding_count(limit: int, window: int, batches: list[list[int]]) -> list[int | None]:
    """The same rule as a person would write it down."""
    seen: list[int] = []
    results: list[int | None] = []
    for batch in batches:
        found = None
        for index, time in enumerate(batch):
            seen.append(time)
            if len(seen) >= limit and time - seen[-limit] <= window and found is None:
                found = index
        results.append(found)
    return results


@given(
    limit=st.integers(1, 6),
    window=st.integers(0, 50),
    steps=st.lists(st.lists(st.integers(-3, 30), max_size=8), max_size=12),
)
def test_sliding_count_equals_a_plain_one(limit: int, window: int, steps: list[list[int]]) -> None:
    time = 1_000
    batches = []
    for batch in steps:
        times = []
        for step in batch:
            time += step
            times.append(time)
        batches.append(times)
    counter = SlidingCount(limit, window)
    found = [counter.add(np.array(batch, np.uint64)) for batch in batches]
    assert found == plain_sliding_count(limit, window, batches)


def test_an_incident_lasts_until_it_has_been_quiet() -> None:
    incidents = IncidentTracker(quiet_ns=60 * SECOND)
    assert incidents.is_new("slow", 0)
    assert not incidents.is_new("slow", 59 * SECOND)
    assert not incidents.is_new("slow", 118 * SECOND)
    assert incidents.is_new("failing", 118 * SECOND)
    assert incidents.is_new("slow", 200 * SECOND)
    assert (incidents.incidents, incidents.suppressed) == (3, 2)


def test_an_incident_without_its_bundle_gets_another_chance_later() -> None:
    incidents = IncidentTracker(quiet_ns=600 * SECOND)
    assert incidents.is_new("slow", 0)
    incidents.collection_failed("slow")
    assert not incidents.is_new("slow", 59 * SECOND)
    assert incidents.is_new("slow", 60 * SECOND)
    assert not incidents.is_new("slow", 200 * SECOND)
    incidents.collection_failed("unknown")
