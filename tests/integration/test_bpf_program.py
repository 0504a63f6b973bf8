"""smb.c in this machine's kernel: what it reports, counts and keeps."""

from __future__ import annotations

import errno
import os
import threading
import time
from pathlib import Path

import pytest

from bpf import abi
from tests.ebpf_host import Kernel, ebpf_host, kernel, program_ids, shared_probe

pytestmark = pytest.mark.ebpf
__all__ = ["ebpf_host", "kernel", "shared_probe"]

SESSION_SETUP, TREE_CONNECT, CREATE, CLOSE, READ, WRITE, ECHO = 1, 3, 5, 6, 8, 9, 13
SECOND = 1_000_000_000
STATUS_ACCESS_DENIED = 0xC0000022
STATUS_MORE_PROCESSING_REQUIRED = 0xC0000016
STATUS_BUFFER_OVERFLOW = 0x80000005


def test_slow_command_becomes_one_event_with_every_field(kernel: Kernel) -> None:
    kernel.probe.settings["slow_ns"][0, READ] = 2 * SECOND
    entering = time.monotonic_ns()
    kernel.enter(READ, mid=900, session=0x1122334455667788, tree=0xAABBCCDD)
    entered = time.monotonic_ns()
    kernel.age(3 * SECOND)
    finishing = time.monotonic_ns()
    kernel.finish(READ, mid=900, session=0x1122334455667788, tree=1)
    finished = time.monotonic_ns()

    (event,) = kernel.events()
    assert finishing <= event["cmd_end_time_ns"] <= finished
    latency = int(event["metric_latency_ns"]) - 3 * SECOND
    assert finishing - entered <= latency <= finished - entering
    assert event["session_id"] == 0x1122334455667788
    assert event["mid"] == 900
    assert event["pid"] == os.getpid()
    assert event["tree_id"] == 0xAABBCCDD, "the tree the command was sent to, not the reply's"
    assert event["retval"] == 0
    assert event["smbcommand"] == READ
    assert event["tool"] == abi.TOOL_SMBSLOWER
    assert event["is_compounded"] == 0
    assert event["task"] == own_task()
    assert kernel.counters() == {"events": 1, "ring_full": 0, "unmatched": 0, "collisions": 0}


def test_an_echo_leaves_no_trace_since_its_end_is_never_reported(kernel: Kernel) -> None:
    for mid in range(3):
        kernel.enter(ECHO, mid=mid)
    assert len(kernel.unanswered()) == 0
    assert kernel.counters()["collisions"] == 0


def test_fast_command_is_only_counted(kernel: Kernel) -> None:
    kernel.probe.settings["slow_ns"][0, :] = 3600 * SECOND
    started = time.monotonic_ns()
    kernel.run(WRITE)
    elapsed = time.monotonic_ns() - started
    ((row, bucket),) = kernel.counted()
    assert row == WRITE
    assert 1 <= bucket <= elapsed.bit_length()
    assert len(kernel.events()) == 0


@pytest.mark.parametrize(("command", "row"), [(0, 0), (19, 19), (31, 31), (32, 31), (0xFFFF, 31)])
def test_histogram_row_and_bucket_are_those_of_the_event(
    kernel: Kernel, command: int, row: int
) -> None:
    kernel.probe.settings["slow_ns"][0, :] = 1
    for age in (0, 1, 1000, SECOND, 20 * SECOND):
        kernel.enter(command, mid=age)
        kernel.age(age)
        kernel.finish(command, mid=age)
        (event,) = kernel.events()
        assert event["smbcommand"] == command
        expected = (row, int(event["metric_latency_ns"]).bit_length())
        assert kernel.counted() == {expected: 1}
        kernel.probe.histograms[:] = 0


def test_limit_of_zero_means_never(kernel: Kernel) -> None:
    kernel.enter(READ, mid=1)
    kernel.age(30 * SECOND)
    kernel.finish(READ, mid=1)
    assert len(kernel.events()) == 0
    assert sum(kernel.counted().values()) == 1


def test_limits_change_while_attached(kernel: Kernel) -> None:
    before = program_ids(kernel.probe)
    kernel.run(READ)
    assert len(kernel.events()) == 0
    kernel.probe.settings["slow_ns"][0, READ] = 1
    kernel.run(READ)
    kernel.run(WRITE)
    assert list(kernel.events()["smbcommand"]) == [READ]
    kernel.probe.settings["slow_ns"][0, READ] = 0
    kernel.run(READ)
    assert len(kernel.events()) == 0
    assert program_ids(kernel.probe) == before


def test_only_tracked_errors_are_reported(kernel: Kernel) -> None:
    kernel.probe.settings["error_tracked"][0, errno.EACCES] = 1
    kernel.run(CREATE, errno=errno.ENOENT)
    kernel.run(CREATE, errno=errno.EACCES)
    kernel.run(CREATE)
    (event,) = kernel.events()
    assert event["retval"] == -errno.EACCES
    assert event["tool"] == abi.TOOL_SMBIOSNOOP
    assert sum(kernel.counted().values()) == 3


def test_success_is_no_error_even_when_errno_0_is_marked(kernel: Kernel) -> None:
    kernel.probe.settings["error_tracked"][0, 0] = 1
    kernel.run(CREATE)
    assert len(kernel.events()) == 0


@pytest.mark.parametrize("number", [abi.ERRNOS - 1, abi.ERRNOS, 4095, 0xFFFF])
def test_large_errno_counts_as_the_last(kernel: Kernel, number: int) -> None:
    kernel.run(CREATE, errno=number)
    assert len(kernel.events()) == 0
    kernel.probe.settings["error_tracked"][0, abi.ERRNOS - 1] = 1
    kernel.run(CREATE, errno=number)
    assert list(kernel.events()["retval"]) == [-number]


def test_slow_failure_carries_both_tools(kernel: Kernel) -> None:
    kernel.probe.settings["slow_ns"][0, READ] = 1
    kernel.probe.settings["error_tracked"][0, errno.EIO] = 1
    kernel.run(READ, errno=errno.EIO)
    assert list(kernel.events()["tool"]) == [abi.TOOL_SMBSLOWER | abi.TOOL_SMBIOSNOOP]


@pytest.mark.parametrize(
    ("status", "retval"),
    [
        (STATUS_ACCESS_DENIED, -errno.EACCES),
        (STATUS_MORE_PROCESSING_REQUIRED, 0),
        (STATUS_BUFFER_OVERFLOW, 0),
        (0x40000000, 0),
    ],
)
def test_status_decides_what_is_a_failure(kernel: Kernel, status: int, retval: int) -> None:
    kernel.probe.settings["slow_ns"][0, CREATE] = 1
    kernel.enter(CREATE, mid=1)
    kernel.fail(CREATE, mid=1, status=status, errno=errno.EACCES)
    assert list(kernel.events()["retval"]) == [retval]


def test_second_end_of_a_command_is_ignored_and_counted(kernel: Kernel) -> None:
    kernel.probe.settings["slow_ns"][0, READ] = 1
    kernel.enter(READ, mid=4)
    kernel.finish(READ, mid=4)
    kernel.finish(READ, mid=4)
    assert len(kernel.events()) == 1
    assert sum(kernel.counted().values()) == 1
    assert kernel.counters()["unmatched"] == 1


@pytest.mark.parametrize(
    "other",
    [
        {"command": WRITE, "mid": 4, "session": 7},
        {"command": READ, "mid": 4 + abi.INFLIGHT_SLOTS, "session": 7},
        {"command": READ, "mid": 4, "session": 8},
        {"command": READ, "mid": 4, "session": 0},
    ],
)
def test_end_of_another_command_leaves_the_slot_alone(
    kernel: Kernel, other: dict[str, int]
) -> None:
    kernel.enter(READ, mid=4, session=7)
    kernel.finish(**other)
    assert kernel.counters()["unmatched"] == 1
    assert list(kernel.unanswered()["mid"]) == [4]


def test_first_leg_of_a_session_setup_has_no_session_yet(kernel: Kernel) -> None:
    kernel.probe.settings["slow_ns"][0, SESSION_SETUP] = 1
    kernel.enter(SESSION_SETUP, mid=1, session=0)
    kernel.finish(SESSION_SETUP, mid=1, session=77)
    kernel.enter(SESSION_SETUP, mid=2, session=77)
    kernel.finish(SESSION_SETUP, mid=2, session=77)
    assert list(kernel.events()["session_id"]) == [77, 77]
    assert kernel.counters()["unmatched"] == 0
    assert len(kernel.unanswered()) == 0


def test_other_commands_need_their_session(kernel: Kernel) -> None:
    kernel.enter(CREATE, mid=1, session=0)
    kernel.finish(CREATE, mid=1, session=77)
    assert kernel.counters()["unmatched"] == 1
    assert len(kernel.unanswered()) == 1


def test_tree_connect_has_the_tree_it_made(kernel: Kernel) -> None:
    kernel.probe.settings["slow_ns"][0, TREE_CONNECT] = 1
    kernel.enter(TREE_CONNECT, mid=1, tree=0)
    kernel.finish(TREE_CONNECT, mid=1, tree=99)
    assert list(kernel.events()["tree_id"]) == [99]


def test_command_in_an_unanswered_ones_slot_is_a_counted_collision(kernel: Kernel) -> None:
    kernel.probe.settings["slow_ns"][0, READ] = 1
    kernel.enter(READ, mid=10)
    kernel.enter(READ, mid=10 + abi.INFLIGHT_SLOTS)
    kernel.finish(READ, mid=10)
    kernel.finish(READ, mid=10 + abi.INFLIGHT_SLOTS)
    assert list(kernel.events()["mid"]) == [10 + abi.INFLIGHT_SLOTS]
    assert kernel.counters() == {"events": 1, "ring_full": 0, "unmatched": 1, "collisions": 1}


@pytest.mark.parametrize("first", [READ, WRITE])
def test_one_mid_on_two_channels_leaves_nothing_hanging(kernel: Kernel, first: int) -> None:
    kernel.probe.settings["slow_ns"][0, :] = 1
    kernel.enter(first, mid=10)
    kernel.enter(READ, mid=10)
    assert list(kernel.unanswered()["smbcommand"]) == [READ]
    assert kernel.counters()["collisions"] == 1
    kernel.finish(first, mid=10)
    kernel.finish(READ, mid=10)
    assert len(kernel.unanswered()) == 0
    assert list(kernel.events()["smbcommand"]) == [READ], "matched once"
    assert kernel.counters()["unmatched"] == 1
    assert sum(kernel.counted().values()) == 1


@pytest.mark.parametrize("session", [0, 1, 0x0000_0400_0000_0011, 0xFFFF_FFFF_FFFF_FFFF])
def test_neighbours_of_one_session_never_collide(kernel: Kernel, session: int) -> None:
    for mid in range(5000, 5000 + abi.INFLIGHT_SLOTS):
        kernel.enter(READ, mid, session)
    assert kernel.counters()["collisions"] == 0
    assert len(kernel.unanswered()) == abi.INFLIGHT_SLOTS


def test_sessions_that_differ_in_high_bits_only_start_apart(kernel: Kernel) -> None:
    for session in range(8):
        kernel.enter(READ, mid=1, session=session << 42)
    assert len(kernel.unanswered()) == 8


def test_unanswered_commands_are_seen_with_their_thread(kernel: Kernel) -> None:
    seen: list[int] = []

    def ask() -> None:
        seen.append(threading.get_native_id())
        kernel.enter(CREATE, mid=3, session=21, tree=22)

    before = time.monotonic_ns()
    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    (command,) = kernel.unanswered()
    assert before <= command["start_ns"] <= time.monotonic_ns()
    assert (command["session_id"], command["mid"], command["tree_id"]) == (21, 3, 22)
    assert command["smbcommand"] == CREATE
    assert (command["pid"], command["thread_id"]) == (os.getpid(), seen[0])
    assert command["task"] == own_task()
    kernel.finish(CREATE, mid=3, session=21)
    assert len(kernel.unanswered()) == 0


def test_members_of_a_compound_are_marked(kernel: Kernel) -> None:
    kernel.probe.settings["slow_ns"][0, :] = 1
    kernel.compound(3)
    for command in (CREATE, READ, CLOSE, WRITE):
        kernel.run(command)
    assert list(kernel.events()["is_compounded"]) == [1, 1, 1, 0]


@pytest.mark.parametrize("members", [0, 1, 17, 0xFFFF])
def test_request_that_is_no_compound_ends_an_unfinished_one(kernel: Kernel, members: int) -> None:
    kernel.probe.settings["slow_ns"][0, :] = 1
    kernel.compound(3)
    kernel.run(CREATE)
    kernel.compound(members)
    kernel.run(READ)
    assert list(kernel.events()["is_compounded"]) == [1, 0]


def test_many_threads_lose_nothing(kernel: Kernel) -> None:
    kernel.probe.settings["slow_ns"][0, READ] = 1

    def work(first: int) -> None:
        for mid in range(first, first + 500):
            kernel.enter(READ, mid)
            kernel.finish(READ, mid)

    threads = [threading.Thread(target=work, args=(first,)) for first in range(0, 2000, 500)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert kernel.counters() == {"events": 2000, "ring_full": 0, "unmatched": 0, "collisions": 0}
    assert sorted(kernel.events()["mid"]) == list(range(2000))
    assert sum(kernel.counted().values()) == 2000


def own_task() -> bytes:
    return Path("/proc/self/comm").read_bytes().strip()


def test_members_behind_a_failed_one_are_not_left_unanswered(kernel: Kernel) -> None:
    first = 500
    for chain in (first, first + 4):
        kernel.compound(3)
        for member, command in enumerate((CREATE, READ, CLOSE)):
            kernel.enter(command, mid=chain + member)
    kernel.enter(READ, mid=first + 3)
    kernel.fail(CREATE, mid=first, status=STATUS_ACCESS_DENIED, errno=errno.EACCES)
    assert kernel.unanswered()["mid"].tolist() == [first + 3, *range(first + 4, first + 7)]
    kernel.finish(CREATE, mid=first + 4)
    assert kernel.unanswered()["mid"].tolist() == [first + 3, first + 5, first + 6]
    kernel.fail(READ, mid=first + 3, status=STATUS_ACCESS_DENIED, errno=errno.EACCES)
    assert kernel.unanswered()["mid"].tolist() == [first + 5, first + 6]


def test_another_threads_compound_is_left_alone(kernel: Kernel) -> None:
    kernel.compound(2)
    kernel.enter(CREATE, mid=900)

    def other() -> None:
        kernel.compound(2)
        kernel.enter(CREATE, mid=901)

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    kernel.fail(CREATE, mid=900, status=STATUS_ACCESS_DENIED, errno=errno.EACCES)
    assert kernel.unanswered()["mid"].tolist() == [901]
