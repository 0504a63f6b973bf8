from __future__ import annotations

import threading
from pathlib import Path

import pytest

from agent.service import thread_supervisor
from agent.service.audit import Audit
from agent.service.stop_signal import StopSignal
from agent.service.thread_supervisor import ThreadSupervisor


@pytest.fixture
def stop(monkeypatch: pytest.MonkeyPatch) -> StopSignal:
    monkeypatch.setattr(thread_supervisor, "FIRST_BACKOFF_SEC", 0.001)
    return StopSignal()


def supervise(run: object, stop: StopSignal) -> ThreadSupervisor:
    return ThreadSupervisor("AnomalyWatcherThread", run, stop, Audit(enabled=False))


def test_a_component_that_dies_is_started_again(stop: StopSignal) -> None:
    runs: list[int] = []

    def run() -> None:
        runs.append(1)
        if len(runs) < 4:
            raise OSError("disk on fire")

    supervisor = supervise(run, stop)
    supervisor.start()
    assert supervisor.join(10)
    assert len(runs) == 4
    assert supervisor.state.restarts == 3
    assert supervisor.state.state == "ended"
    assert supervisor.state.last_fault == "OSError: disk on fire"


def test_a_stop_ends_the_wait_and_lets_the_component_run_a_last_time(
    stop: StopSignal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(thread_supervisor, "FIRST_BACKOFF_SEC", 1_000.0)
    failed = threading.Event()

    def run() -> None:
        failed.set()
        raise ValueError

    supervisor = supervise(run, stop)
    supervisor.start()
    assert failed.wait(10)
    stop.set()
    assert supervisor.join(10)
    assert supervisor.state.restarts == 1
    assert supervisor.state.state == "ended"


def test_the_thread_carries_its_name_in_15_characters(stop: StopSignal) -> None:
    names: list[str] = []
    supervisor = supervise(
        lambda: names.append(Path("/proc/thread-self/comm").read_text().strip()), stop
    )
    supervisor.start()
    assert supervisor.join(10)
    assert names == ["AnomalyWatcherT"]
