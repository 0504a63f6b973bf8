"""The bell in this machine's kernel: it wakes a sleeping agent once, and lets it miss nothing."""

from __future__ import annotations

import mmap
import multiprocessing
import time
from collections.abc import Callable

import numpy as np
import pytest

from agent.kernel.probe import load_probe
from bpf import abi
from tests.ebpf_host import DEADLINE_SEC, PRCTL_LOADER, Kernel, ebpf_host, kernel, shared_probe

pytestmark = pytest.mark.ebpf
__all__ = ["ebpf_host", "kernel", "shared_probe"]

CREATE, READ, ECHO = 5, 8, 13
# The slot of a command without a session is its mid, up to the length of the table.
NO_SESSION = 0
RACES = 16_000


def arm(kernel: Kernel) -> None:
    kernel.probe.settings["bell"] = 1


def armed(kernel: Kernel) -> bool:
    return bool(kernel.probe.settings["bell"][0])


def test_armed_bell_rings_once(kernel: Kernel) -> None:
    arm(kernel)
    before = time.monotonic_ns()
    kernel.run(CREATE)
    after = time.monotonic_ns()
    assert not armed(kernel)
    kernel.run(CREATE)

    (bell,) = kernel.events()
    assert before <= bell["cmd_end_time_ns"] <= after
    expected = np.zeros(1, abi.EVENT)[0]
    expected["cmd_end_time_ns"] = bell["cmd_end_time_ns"]
    expected["smbcommand"] = abi.NO_COMMAND
    expected["tool"] = abi.TOOL_BELL
    assert bell == expected
    assert kernel.counters() == {"events": 1, "ring_full": 0, "unmatched": 0, "collisions": 0}


def test_bell_that_is_not_armed_is_silent(kernel: Kernel) -> None:
    kernel.run(CREATE)
    assert len(kernel.events()) == 0


def test_echo_does_not_ring(kernel: Kernel) -> None:
    arm(kernel)
    kernel.enter(ECHO, mid=1)
    assert armed(kernel)
    assert len(kernel.events()) == 0


def test_end_of_a_command_does_not_ring(kernel: Kernel) -> None:
    kernel.enter(READ, mid=1)
    arm(kernel)
    kernel.finish(READ, mid=1)
    assert armed(kernel)
    assert len(kernel.events()) == 0


@pytest.mark.usefixtures("ebpf_host")
def test_full_ring_keeps_the_bell_armed() -> None:
    probe = load_probe(ring_pages=1, command=PRCTL_LOADER)
    try:
        kernel = Kernel(probe)
        probe.settings["slow_ns"] = 1
        while not kernel.counters()["ring_full"]:
            kernel.run(READ)
        probe.settings["slow_ns"] = 0
        arm(kernel)
        kernel.run(READ)
        assert armed(kernel)
        assert kernel.counters()["ring_full"] == 1, "a bell that stays armed is no loss"
        assert abi.TOOL_BELL not in kernel.events()["tool"]
        kernel.run(READ)
        assert list(kernel.events()["tool"]) == [abi.TOOL_BELL]
        assert not armed(kernel)
    finally:
        probe.close()


@pytest.mark.alone  # the race needs two processors at once
def test_agent_that_arms_and_then_looks_misses_no_command(kernel: Kernel) -> None:
    """Each command hangs until the agent knows of it; on a miss nothing would ever tell it.

    The delay settles where both come first equally often.
    """
    started, turn = kernel.probe.inflight["start_ns"], mmap.mmap(-1, mmap.PAGESIZE)
    client = multiprocessing.get_context("fork").Process(
        target=enter_in_turn, args=(kernel, turn), daemon=True
    )
    client.start()
    seen_by_scan = delay = 0
    try:
        for mid in range(1, RACES + 1):
            turn[:8] = mid.to_bytes(8, "little")
            spin(delay)
            arm(kernel)
            if started[mid]:
                seen_by_scan += 1
                delay = max(0, delay - 1)
            else:
                delay += 1
                spin_until(lambda: not armed(kernel), f"the bell for command {mid}")
            spin_until(lambda mid=mid: started[mid] != 0, f"the slot of command {mid}")
            kernel.finish(READ, mid, session=NO_SESSION)
            kernel.events()
    finally:
        client.kill()
        client.join()
    assert 0 < seen_by_scan < RACES, "one side always came first: this was no race"


def enter_in_turn(kernel: Kernel, turn: mmap.mmap) -> None:
    """In a process of its own, and thus on a CPU of its own: one command per turn."""
    for mid in range(1, RACES + 1):
        while int.from_bytes(turn[:8], "little") < mid:
            pass
        kernel.enter(READ, mid, session=NO_SESSION)


def spin(times: int) -> None:
    for _ in range(times):
        pass


def spin_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_SEC
    while not condition():
        assert time.monotonic() < deadline, f"not in {DEADLINE_SEC} s: {what}"
