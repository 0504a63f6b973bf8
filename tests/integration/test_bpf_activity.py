"""What this machine's kernel counts by time, and what it remembers of lost connections."""

from __future__ import annotations

import errno
import time

import numpy as np
import pytest

from agent.events.activity import commands_between
from bpf import abi
from tests.ebpf_host import TEST_HOST, Kernel, ebpf_host, kernel, shared_probe

pytestmark = pytest.mark.ebpf
__all__ = ["ebpf_host", "kernel", "shared_probe"]

CREATE, READ, WRITE = 5, 8, 9
TICK_NS = 1 << abi.TICK_SHIFT


def test_activity_counts_every_answered_command(kernel: Kernel) -> None:
    kernel.probe.settings["slow_ns"][0, READ] = 1
    first_ns = time.monotonic_ns()
    for command in (READ, READ, CREATE, 32, 0xFFFF):
        kernel.run(command)
    kernel.run(WRITE, errno=errno.EIO)
    last_ns = time.monotonic_ns()
    kernel.enter(WRITE, mid=kernel.next_mid())
    kernel.finish(CREATE, mid=kernel.next_mid())
    assert kernel.counters()["unmatched"] == 1

    commands = commands_between(kernel.probe.activity, first_ns, last_ns)
    assert list(commands) == list(kernel.probe.histograms.sum(axis=1))
    assert {row: int(commands[row]) for row in np.flatnonzero(commands)} == {
        READ: 2,
        CREATE: 1,
        WRITE: 1,
        31: 2,
    }


def test_activity_is_counted_in_the_tick_of_the_end(kernel: Kernel) -> None:
    kernel.enter(READ, mid=1)
    kernel.age(10 * TICK_NS)
    first_ns = time.monotonic_ns()
    kernel.finish(READ, mid=1)
    last_ns = time.monotonic_ns()
    (slot,) = np.flatnonzero(kernel.probe.activity["commands"][:, READ])
    tick = int(kernel.probe.activity["tick"][slot])
    assert first_ns // TICK_NS <= tick <= last_ns // TICK_NS
    assert slot == tick % abi.TICKS


def test_tick_that_takes_an_older_ones_slot_begins_at_zero(kernel: Kernel) -> None:
    slots = np.arange(abi.TICKS, dtype=np.uint64)
    kernel.probe.activity["tick"] = slots
    kernel.probe.activity["commands"] = 99
    kernel.run(READ)
    kernel.run(READ)

    used = kernel.probe.activity[kernel.probe.activity["tick"] != slots]
    assert 1 <= len(used) <= 2, "the second may have been the next tick's"
    assert used["commands"].sum() == 2
    assert used["commands"][:, READ].sum() == 2
    untouched = kernel.probe.activity[kernel.probe.activity["tick"] == slots]
    assert (untouched["commands"] == 99).all()


def test_lost_connection_is_an_event_for_who_asks(kernel: Kernel) -> None:
    kernel.lose_connection(conn_id=5)
    assert len(kernel.events()) == 0
    kernel.probe.settings["reconnects"] = 1
    before = time.monotonic_ns()
    kernel.lose_connection(conn_id=6, mid=1234)
    after = time.monotonic_ns()

    (event,) = kernel.events()
    assert before <= event["cmd_end_time_ns"] <= after
    expected = np.zeros(1, abi.EVENT)[0]
    expected["cmd_end_time_ns"] = event["cmd_end_time_ns"]
    expected["session_id"] = 6
    expected["mid"] = 1234
    expected["smbcommand"] = abi.NO_COMMAND
    expected["tool"] = abi.TOOL_RECONNECT
    expected["task"] = TEST_HOST[: abi.TASK_LENGTH].encode()
    assert event == expected
    assert kernel.counted() == {}


def test_servers_of_lost_connections_are_remembered(kernel: Kernel) -> None:
    for conn_id in (3, 4, 3, 3 + abi.CONNECTIONS):
        kernel.lose_connection(conn_id)
    known = kernel.probe.connections[kernel.probe.connections["conn_id"] != 0]
    assert list(known["conn_id"]) == [3 + abi.CONNECTIONS, 4], "of two in one slot the later"
    assert set(known["hostname"]) == {TEST_HOST.encode()}


def test_lost_connection_leaves_the_bell_alone(kernel: Kernel) -> None:
    kernel.probe.settings["bell"] = 1
    kernel.lose_connection(conn_id=3)
    assert kernel.probe.settings["bell"][0] == 1
