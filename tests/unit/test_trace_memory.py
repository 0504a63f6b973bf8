"""A trace tells the kernel's memory at any moment as a plain look at all of its commands does."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from agent.cifs.state import CifsTexts
from agent.events.activity import activity_of
from agent.events.trace import Look, Trace
from agent.events.trace_memory import TraceMemory
from agent.events.trace_totals import histograms_of
from bpf import abi

TICK_NS = 1 << abi.TICK_SHIFT

COMMANDS = st.lists(
    st.tuples(
        st.integers(0, 12),  # end, in fifths of a tick after the one before
        st.integers(0, 40),  # latency, likewise
        st.sampled_from([5, 8, 9, abi.NO_COMMAND]),
    ),
    max_size=40,
)
MOMENTS = st.lists(st.integers(0, 600), min_size=1, max_size=8)


def events_of(steps: list[tuple[int, int, int]]) -> np.ndarray:
    events = np.zeros(len(steps), abi.EVENT)
    end = 1_000
    for mid, (step, latency, command) in enumerate(steps):
        end += step - 2  # some come in late
        events[mid]["cmd_end_time_ns"] = end * TICK_NS // 5
        events[mid]["metric_latency_ns"] = latency * TICK_NS // 5
        events[mid]["smbcommand"] = command
        events[mid]["mid"] = mid
    return events


@given(steps=COMMANDS, moments=MOMENTS)
def test_as_a_look_at_every_command(steps: list[tuple[int, int, int]], moments: list[int]) -> None:
    events = events_of(steps)
    commands = events[events["smbcommand"] != abi.NO_COMMAND]
    starts = commands["cmd_end_time_ns"] - commands["metric_latency_ns"]
    memory = TraceMemory(Trace({}, events, 0))
    for moment in moments:
        time_ns = (980 + moment) * TICK_NS // 5
        ended = commands["cmd_end_time_ns"] <= time_ns
        histograms, activity = memory.totals(time_ns)
        assert np.array_equal(histograms, histograms_of(commands[ended]))
        assert np.array_equal(activity, activity_of(commands[ended]))
        under_way = commands[~ended & (starts <= time_ns)]
        assert sorted(memory.inflight(time_ns)["mid"]) == sorted(under_way["mid"])
        later = starts[starts > time_ns]
        assert memory.next_start_ns(time_ns) == (int(later.min()) if len(later) else None)


def test_ticks_that_share_a_slot_keep_the_later_one() -> None:
    events = np.zeros(3, abi.EVENT)
    events["cmd_end_time_ns"] = [5 * TICK_NS, (5 + abi.TICKS) * TICK_NS, (6 + abi.TICKS) * TICK_NS]
    events["smbcommand"] = 8
    memory = TraceMemory(Trace({}, events, 0))
    for time_ns in map(int, events["cmd_end_time_ns"]):
        memory.totals(time_ns)
    _, activity = memory.totals(int(events["cmd_end_time_ns"][-1]))
    assert np.array_equal(activity, activity_of(events))


def test_what_was_never_answered_stands_there_while_looks_saw_it() -> None:
    events = events_of([(2, 1, 8), (10, 3, 9)])
    seen = np.zeros(2, abi.INFLIGHT)
    seen["start_ns"] = [events[1]["cmd_end_time_ns"] - events[1]["metric_latency_ns"], 77]
    seen["mid"] = [1, 99]
    looks = tuple(Look(t, seen, CifsTexts(f"at {t}", "", "")) for t in (1_000, 2_000))
    memory = TraceMemory(Trace({}, events, 0, looks))
    assert list(memory.inflight(76)["mid"]) == []
    assert list(memory.inflight(2_000)["mid"]) == [99]
    assert list(memory.inflight(2_001)["mid"]) == []
    assert memory.next_start_ns(0) == 77
    assert memory.cifs_texts(1_400).debug_data == "at 1000"
    assert memory.cifs_texts(1_600).debug_data == "at 2000"
