"""The table of commands by time: reading it, and making it from recorded commands."""

from __future__ import annotations

import numpy as np
import pytest

from agent.events.activity import activity_of, commands_between, no_activity
from bpf import abi

CREATE, READ = 5, 8
TICK_NS = 1 << abi.TICK_SHIFT
SOME_TICK = 5 * abi.TICKS + 1_000


def events_at(*times_ns: int, command: int = READ) -> np.ndarray:
    events = np.zeros(len(times_ns), abi.EVENT)
    events["cmd_end_time_ns"] = times_ns
    events["smbcommand"] = command
    return events


def at_tick(tick: int, within: int = 0) -> int:
    return tick * TICK_NS + within


def counted(activity: np.ndarray, first_tick: int, last_tick: int) -> dict[int, int]:
    """By row, in whole ticks."""
    commands = commands_between(activity, at_tick(first_tick), at_tick(last_tick, TICK_NS - 1))
    assert commands.shape == (abi.COMMANDS,)
    assert commands.dtype == np.uint64
    return {int(row): int(commands[row]) for row in np.flatnonzero(commands)}


def test_no_activity_counts_nothing() -> None:
    assert counted(no_activity(), 0, SOME_TICK) == {}
    assert counted(activity_of(events_at()), 0, SOME_TICK) == {}


def test_both_end_ticks_count_as_a_whole() -> None:
    ticks = [SOME_TICK + offset for offset in range(4)]
    activity = activity_of(events_at(*(at_tick(tick, TICK_NS // 2) for tick in ticks)))
    last_moment_of_second, first_moment_of_third = at_tick(ticks[2]) - 1, at_tick(ticks[2])
    both = commands_between(activity, last_moment_of_second, first_moment_of_third)
    assert both[READ] == 2
    one = commands_between(activity, last_moment_of_second, last_moment_of_second)
    assert one[READ] == 1


def test_range_before_boot_reaches_the_first_tick() -> None:
    activity = activity_of(events_at(0, at_tick(2)))
    assert commands_between(activity, -60 * 10**9, 1)[READ] == 1
    assert commands_between(activity, 1, -1)[READ] == 0


def test_range_over_the_end_of_the_table_finds_both_sides() -> None:
    last_slot = 6 * abi.TICKS - 1
    activity = activity_of(events_at(at_tick(last_slot), at_tick(last_slot + 1)))
    assert list(np.flatnonzero(activity["tick"])) == [0, abi.TICKS - 1]
    assert counted(activity, last_slot, last_slot + 1) == {READ: 2}
    assert counted(activity, last_slot + 1, last_slot + 1) == {READ: 1}


def test_slot_of_another_tick_does_not_count() -> None:
    activity = activity_of(events_at(at_tick(SOME_TICK)))
    assert counted(activity, SOME_TICK + abi.TICKS, SOME_TICK + abi.TICKS) == {}
    assert counted(activity, SOME_TICK - abi.TICKS, SOME_TICK - 1) == {}


@pytest.mark.parametrize("order", [1, -1])
def test_later_tick_takes_the_slot_whatever_the_order(order: int) -> None:
    older, newer = at_tick(SOME_TICK), at_tick(SOME_TICK + abi.TICKS)
    times = [older, older, newer, newer + 1, newer + 2][::order]
    activity = activity_of(events_at(*times))
    assert counted(activity, 0, SOME_TICK + abi.TICKS) == {READ: 3}


def test_rows_are_the_commands_and_records_of_no_command_do_not_count() -> None:
    now = at_tick(SOME_TICK)
    events = np.concatenate(
        [
            events_at(now, now, command=CREATE),
            events_at(now, command=abi.COMMANDS + 7),
            events_at(now, command=abi.NO_COMMAND),
        ]
    )
    activity = activity_of(events)
    assert counted(activity, SOME_TICK, SOME_TICK) == {CREATE: 2, abi.COMMANDS - 1: 1}


def test_many_commands_all_count() -> None:
    rng = np.random.default_rng(1)
    times = at_tick(SOME_TICK) + rng.integers(0, abi.TICKS * TICK_NS, 50_000)
    activity = activity_of(events_at(*times.tolist()))
    assert counted(activity, SOME_TICK, SOME_TICK + abi.TICKS - 1) == {READ: 50_000}
    expected = np.bincount(times >> abi.TICK_SHIFT)[SOME_TICK:].tolist()
    sums = [
        counted(activity, tick, tick).get(READ, 0)
        for tick in range(SOME_TICK, SOME_TICK + len(expected))
    ]
    assert sums == expected
