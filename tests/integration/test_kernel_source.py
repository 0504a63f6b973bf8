"""The live source on this machine's kernel: its settings, its bell, its clock, its snapshot."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from agent.events.activity import commands_between
from agent.events.event_source import KernelSource
from agent.events.flight_recorder import FlightRecorder
from agent.kernel.probe import load_probe
from bpf import abi
from tests.ebpf_host import DEADLINE_SEC, PRCTL_LOADER, TEST_HOST, Kernel, ebpf_host

pytestmark = pytest.mark.ebpf
__all__ = ["ebpf_host"]

READ, WRITE = 8, 9


@pytest.fixture(scope="module")
def loaded(ebpf_host: None) -> Iterator[tuple[Kernel, KernelSource]]:
    probe = load_probe(command=PRCTL_LOADER)
    kernel, source = Kernel(probe), KernelSource(probe)
    yield kernel, source
    source.close()


@pytest.fixture
def kernel(loaded: tuple[Kernel, KernelSource]) -> Kernel:
    loaded[0].forget()
    return loaded[0]


@pytest.fixture
def source(loaded: tuple[Kernel, KernelSource], kernel: Kernel) -> KernelSource:
    return loaded[1]


def some_settings() -> np.ndarray:
    settings = np.zeros(1, abi.SETTINGS)
    settings["slow_ns"] = np.arange(1, abi.COMMANDS + 1)
    settings["error_tracked"][0, ::3] = 1
    settings["reconnects"] = 1
    return settings


def test_settings_reach_the_kernel_and_leave_an_armed_bell(
    kernel: Kernel, source: KernelSource
) -> None:
    source.arm_bell(0)
    wanted = some_settings()
    source.apply(wanted)
    wanted["bell"] = 1
    assert kernel.probe.settings.tobytes() == wanted.tobytes()
    source.apply(np.zeros(1, abi.SETTINGS))
    assert source.bell_armed()
    kernel.run(READ)
    assert list(kernel.events()["tool"]) == [abi.TOOL_BELL]


def test_settings_do_not_arm_the_bell(kernel: Kernel, source: KernelSource) -> None:
    settings = some_settings()
    settings["bell"] = 1
    source.apply(settings)
    assert not source.bell_armed()


def test_bell_ends_the_wait_of_an_idle_agent(kernel: Kernel, source: KernelSource) -> None:
    recorder = FlightRecorder(16)
    source.arm_bell(0)
    assert source.bell_armed()
    waiter = threading.Thread(target=source.wait, daemon=True)
    waiter.start()
    kernel.enter(READ, mid=1)
    waiter.join(DEADLINE_SEC)
    assert not waiter.is_alive()
    assert not source.bell_armed()
    assert source.drain(recorder) == 1
    assert list(source.snapshot().inflight["mid"]) == [1]


def test_clock_is_that_of_the_events(kernel: Kernel, source: KernelSource) -> None:
    recorder = FlightRecorder(16)
    source.arm_bell(0)
    before = source.clock_ns()
    kernel.run(READ)
    after = source.clock_ns()
    source.drain(recorder)
    (bell,) = recorder.view(0, 1)
    assert before <= bell["cmd_end_time_ns"] <= after


def test_snapshot_has_activity_and_hosts_as_of_its_time(
    kernel: Kernel, source: KernelSource
) -> None:
    first_ns = source.clock_ns()
    kernel.run(READ)
    kernel.lose_connection(conn_id=21)
    snapshot = source.snapshot()
    kernel.run(READ)
    kernel.lose_connection(conn_id=22)
    assert commands_between(snapshot.activity, first_ns, source.clock_ns())[READ] == 1
    assert snapshot.hosts == {21: TEST_HOST}


def test_host_name_is_made_printable(kernel: Kernel, source: KernelSource) -> None:
    kernel.lose_connection(conn_id=1)
    kernel.probe.connections["hostname"][1] = b"\x1b[2Jevil\xff"
    (name,) = source.snapshot().hosts.values()
    assert name.isprintable()
    assert "evil" in name


@pytest.mark.usefixtures("ebpf_host")
def test_closed_source_answers_and_does_nothing() -> None:
    probe = load_probe(command=PRCTL_LOADER)
    memory = probe.settings
    source = KernelSource(probe)
    source.arm_bell(0)
    source.close()
    memory["bell"] = 0
    source.arm_bell(0)
    source.apply(some_settings())
    assert not memory.tobytes().strip(b"\0")
    memory["bell"] = 1
    assert source.bell_armed() is False
    assert source.clock_ns() <= time.monotonic_ns()
    snapshot = source.snapshot()
    assert snapshot.hosts == {}
    assert not snapshot.activity["commands"].any()
