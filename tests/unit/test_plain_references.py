"""The vectorised detectors find what a person's plain loop finds, in any stream of events."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from agent.anomaly_types.reconnect import Loss, ReconnectRule
from agent.cifs.debug_data import PendingCommand, Server
from agent.cifs.state import CifsState
from agent.detection.anomaly_handler import AnomalyHandler, Finding
from agent.detection.event_batch import EventBatch
from agent.detection.sight import Sight
from agent.events.event_source import empty_snapshot
from agent.kernel.kernel_filter import apply_filter, kernel_settings
from bpf import abi
from tests.rules import error_rule, handler_of, latency_rule, stall_rule

MS = 1_000_000
WINDOW_MS = 50
LIMITS = {8: 20, 9: 30}
SINGLE_MS = 60
TRACKED = {5, 13}

Found = set[tuple[int, int]]  # (time in ms, session)

EVENTS = st.lists(
    st.tuples(
        st.integers(-4, 25),  # ms after the event before; a late one came before it
        st.sampled_from([8, 9, 10, 400, abi.NO_COMMAND]),
        st.sampled_from([0, 15, 20, 29, 30, 59, 60, 99]),
        st.sampled_from([0, 0, 5, 13, 2, 999]),
        st.sampled_from([1, 1, 1, 2, 3]),
        st.integers(0, 3),  # 0: a new batch begins here
    ),
    max_size=60,
)


def batches_of(steps: list[tuple[int, ...]]) -> list[np.ndarray]:
    events = np.zeros(len(steps), abi.EVENT)
    time_ms, starts = 1_000, []
    for place, (step, command, latency_ms, error, session, begins) in enumerate(steps):
        time_ms += step
        events[place]["cmd_end_time_ns"] = time_ms * MS
        events[place]["smbcommand"] = command
        events[place]["tool"] = abi.TOOL_RECONNECT if command == abi.NO_COMMAND else 1
        events[place]["metric_latency_ns"] = 0 if command == abi.NO_COMMAND else latency_ms * MS
        events[place]["retval"] = 0 if command == abi.NO_COMMAND else -error
        events[place]["session_id"] = session
        starts += [place] if begins == 0 and place else []
    return [batch for batch in np.split(events, starts) if len(batch)]


def plain_counts(
    batches: list[np.ndarray], counts: Iterable[object], limit: int, enough: object = None
) -> list[Found]:
    """For each batch the first completion of each session: ``limit`` within the window of each
    other, or one for which ``enough`` holds."""
    times: dict[int, list[int]] = defaultdict(list)
    found = []
    for batch in batches:
        first: dict[int, int] = {}
        for event in batch:
            session, time_ms = int(event["session_id"]), int(event["cmd_end_time_ns"]) // MS
            complete = False
            if counts(event):
                times[session].append(time_ms)
                complete = (
                    len(times[session]) >= limit and time_ms - times[session][-limit] <= WINDOW_MS
                )
            if session not in first and (complete or (enough and enough(event))):
                first[session] = time_ms
        found.append({(time_ms, session) for session, time_ms in first.items()})
    return found


def detected(handler: AnomalyHandler, batches: list[np.ndarray]) -> list[Found]:
    return [
        {(f.time_ns // MS, whose(f)) for f in handler.detect(EventBatch.of(batch))}
        for batch in reported(handler, batches)
    ]


def whose(finding: Finding) -> int:
    """The session's number, or that of the lost connection."""
    return finding.detail.connection if isinstance(finding.detail, Loss) else finding.session_id


def reported(handler: AnomalyHandler, batches: list[np.ndarray]) -> list[np.ndarray]:
    """What the kernel lets through, with its marks, for this rule and another one."""
    rules = [handler.rule, latency_rule(track={8: 15.0, 10: 20.0}, name="another")]
    return [apply_filter(kernel_settings(rules), batch) for batch in batches]


@given(steps=EVENTS, limit=st.integers(1, 4))
def test_latency(steps: list[tuple[int, ...]], limit: int) -> None:
    batches = batches_of(steps)
    rule = latency_rule(limit, LIMITS, single_event_threshold_ms=SINGLE_MS)
    assert detected(handler_of(rule, WINDOW_MS * MS), batches) == plain_counts(
        batches,
        lambda e: e["metric_latency_ns"] >= LIMITS.get(int(e["smbcommand"]), 10**9) * MS,
        limit,
        lambda e: e["smbcommand"] in LIMITS and e["metric_latency_ns"] >= SINGLE_MS * MS,
    )


@given(steps=EVENTS, limit=st.integers(1, 4), commands=st.none() | st.just(frozenset({8, 10})))
def test_errors(steps: list[tuple[int, ...]], limit: int, commands: frozenset[int] | None) -> None:
    batches = batches_of(steps)
    settings = {} if commands is None else {"commands": commands}
    handler = handler_of(error_rule(limit, TRACKED, **settings), WINDOW_MS * MS)
    assert detected(handler, batches) == plain_counts(
        batches,
        lambda e: -e["retval"] in TRACKED and (commands is None or e["smbcommand"] in commands),
        limit,
    )


@given(steps=EVENTS, limit=st.integers(1, 3))
def test_lost_connections(steps: list[tuple[int, ...]], limit: int) -> None:
    batches = batches_of(steps)
    handler = handler_of(ReconnectRule(name="lost", acceptable_count=limit), WINDOW_MS * MS)
    assert detected(handler, batches) == plain_counts(
        batches, lambda e: e["smbcommand"] == abi.NO_COMMAND, limit
    )


WAITING = st.lists(
    st.tuples(
        st.integers(1, 40),  # started, in seconds
        st.sampled_from([8, 9, 10, 13, 15, 400]),
        st.sampled_from([1, 2]),
        st.booleans(),  # the kernel lists it as pending
    ),
    max_size=12,
    unique_by=lambda entry: entry[0],
)


@given(waiting=WAITING, looks=st.lists(st.integers(1, 60), min_size=1, max_size=6))
def test_stalls(waiting: list[tuple[int, int, int, bool]], looks: list[int]) -> None:
    stall_sec, second = 5, 1_000 * MS
    handler = handler_of(stall_rule(stall_sec))
    slots = np.zeros(len(waiting), abi.INFLIGHT)
    for mid, (started, command, session, _) in enumerate(waiting):
        slots[mid] = (started * second, session, mid, 1, 1, 1, command, 0, 0, b"dd", 0)
    pending = [
        PendingCommand(command=command, mid=mid, thread_id=1, state=2)
        for mid, (_, command, _, listed) in enumerate(waiting)
        if listed
    ]
    state = CifsState((Server(1, "server", (), tuple(pending)),), ())
    for now in sorted(looks):
        snapshot = empty_snapshot()
        begun = slots[slots["start_ns"] <= now * second]
        sight = Sight(now * second, replace_inflight(snapshot, begun), lambda: state)
        overdue = {
            session
            for started, command, session, listed in waiting
            if listed and started + stall_sec <= now and command in {8, 9}
        }
        assert {finding.session_id for finding in handler.look(sight)} == overdue
        due = handler.next_look_ns(sight)
        watched = [s for s, c, _, listed in waiting if s <= now and c in {8, 9} and listed]
        assert (due is not None) or not watched
        young = [s + stall_sec for s in watched if s + stall_sec > now]
        assert not young or (due is not None and due <= min(young) * second)


def replace_inflight(snapshot: object, inflight: np.ndarray) -> object:
    from dataclasses import replace

    return replace(snapshot, inflight=inflight)
