from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.anomaly_types.registry import ANOMALY_TYPES
from agent.cifs.state import NO_STATE
from agent.configuration.schema import AnomalyConfig
from agent.detection.anomaly import Trigger
from agent.detection.anomaly_handler import AnomalyHandler, Finding
from agent.detection.event_batch import EventBatch
from agent.detection.scene import Scene
from agent.detection.sliding_count import SlidingCount
from agent.events.activity import activity_of
from agent.events.event_source import empty_snapshot
from bpf import abi
from tests.rules import error_rule, handler_of, latency_rule

MS = 1_000_000
SECOND = 1_000 * MS
READ, WRITE, ECHO, SESSION_SETUP = 8, 9, 13, 1
EACCES, EIO = 13, 5
SESSION, OTHER_SESSION = 0xA, 0xB


def latency_handler(count: int = 3, **settings: object) -> AnomalyHandler:
    return handler_of(latency_rule(count, **settings))


def error_handler(count: int = 2, **settings: object) -> AnomalyHandler:
    return handler_of(error_rule(count, **settings))


def event(
    at_ms: float,
    command: int = READ,
    latency_ms: float = 60,
    retval: int = 0,
    session: int = SESSION,
) -> np.ndarray:
    row = np.zeros(1, abi.EVENT)
    row["cmd_end_time_ns"] = int(at_ms * MS)
    row["smbcommand"] = command
    row["metric_latency_ns"] = int(latency_ms * MS)
    row["retval"] = retval
    row["session_id"] = session
    row["tool"] = abi.TOOL_SMBSLOWER | (abi.TOOL_SMBIOSNOOP if retval else 0)
    row["pid"] = 4711
    row["task"] = b"dd"
    return row


def detect(handler: AnomalyHandler, events: np.ndarray) -> int | None:
    """When the first anomaly of a batch was complete."""
    return min((f.time_ns for f in handler.detect(EventBatch.of(events))), default=None)


def feed(handler: AnomalyHandler, *events: np.ndarray) -> list[int | None]:
    """One detection per event, each in a batch of its own."""
    return [detect(handler, batch) for batch in events]


def scene(events: np.ndarray) -> Scene:
    snapshot = empty_snapshot()
    snapshot.activity[:] = activity_of(events)
    return Scene(lambda: events, lambda: snapshot, NO_STATE, lambda: NO_STATE)


def describe(handler: AnomalyHandler, events: np.ndarray) -> Trigger:
    """What is said about the only anomaly in ``events``."""
    (finding,) = handler.detect(EventBatch.of(events))
    return handler.describe(finding, scene(events))


def test_every_type_makes_a_handler_of_its_own_rules() -> None:
    for kind, rule in (("latency", latency_rule()), ("error", error_rule())):
        assert isinstance(rule, AnomalyConfig)
        assert rule.type == kind
        assert isinstance(handler_of(rule), AnomalyHandler)
    assert set(ANOMALY_TYPES) == {"latency", "error", "stall", "reconnect", "drift"}


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


def test_latency_description_says_what_is_slow_how_much_and_whose() -> None:
    handler = latency_handler(3)
    events = np.concatenate(
        [event(1, READ, 120), event(2, READ, 1), event(3, READ, 990), event(4, WRITE, 200)]
    )
    trigger = describe(handler, events)
    assert (trigger.violations, trigger.worst_ns) == (3, 990 * MS)
    assert (trigger.command, trigger.session_id) == (READ, SESSION)
    assert trigger.reason == (
        "SMB2_READ: 2 commands over 50 ms in 1 s, worst 990 ms, by dd[4711]; and 1 of other kinds"
    )


def test_a_single_very_slow_command_is_described_as_what_it_is() -> None:
    handler = latency_handler(10)
    events = np.concatenate([event(0, READ, 1), event(1, WRITE, 2_500)])
    reason = describe(handler, events).reason
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
    trigger = describe(handler, events)
    assert trigger.reason == "SMB2_CREATE: 1 command failed with EACCES in 1 s, by dd[4711]"
    assert trigger.time_ns == 1 * MS


def test_a_task_name_with_control_characters_stays_printable() -> None:
    handler = error_handler(1)
    events = event(0, retval=-EIO)
    events["task"] = b"\x1b[31mred\xff\n"
    assert describe(handler, events).reason.isprintable()


def test_what_is_slow_with_one_session_is_not_added_to_another() -> None:
    handler = latency_handler(3)
    mixed = [event(at, session=SESSION if at % 2 else OTHER_SESSION) for at in range(1, 5)]
    assert feed(handler, *mixed) == [None] * 4
    batch = EventBatch.of(np.concatenate([event(5), event(6, session=OTHER_SESSION)]))
    assert handler.detect(batch) == [Finding(5 * MS, SESSION), Finding(6 * MS, OTHER_SESSION)]


def test_the_limit_of_a_single_event_can_be_set_below_the_commands_own() -> None:
    handler = latency_handler(100, track={READ: 20.0}, single_event_threshold_ms=300.0)
    assert detect(handler, event(0, READ, 299)) is None
    assert detect(handler, event(1, READ, 300)) == 1 * MS


def test_a_single_slow_event_counts_below_the_commands_own_limit_too() -> None:
    handler = latency_handler(100, track={READ: 2_000.0}, single_event_threshold_ms=1_000.0)
    assert detect(handler, event(0, READ, 999)) is None
    assert detect(handler, event(1, READ, 1_500)) == 1 * MS
    assert detect(handler, event(2, WRITE, 9_000)) is None
    assert describe(handler, event(3, READ, 1_500)).reason.startswith("SMB2_READ took 1.5 s")


def test_refused_log_ons_count_together_although_each_has_its_own_session() -> None:
    handler = error_handler(3)
    tries = [event(at, SESSION_SETUP, retval=-EACCES, session=100 + at) for at in range(3)]
    assert feed(handler, *tries) == [None, None, 2 * MS]
    trigger = describe(error_handler(3), np.concatenate(tries))
    assert trigger.reason.startswith("SMB2_SESSION_SETUP: 3 commands failed with EACCES")


def test_errors_can_be_watched_for_some_commands_alone() -> None:
    handler = error_handler(1, commands=frozenset({READ}))
    assert detect(handler, event(0, WRITE, retval=-EIO)) is None
    assert detect(handler, event(1, 77, retval=-EIO)) is None
    assert detect(handler, event(2, READ, retval=-EIO)) == 2 * MS


@pytest.mark.parametrize(("fine", "stands"), [(0, True), (1, True), (2, False)])
def test_errors_can_be_asked_to_be_most_of_what_happens(fine: int, stands: bool) -> None:
    handler = error_handler(4, minimum_share_percent=80)
    events = np.concatenate([event(at, retval=0 if at < fine else -EIO) for at in range(4 + fine)])
    (finding,) = handler.detect(EventBatch.of(events))
    assert handler.stands(finding, scene(events)) is stands


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
