"""The whole agent in one process: recorded events in, bundles in a spool out."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from agent.config_loader import load_config
from agent.configuration.schema import Config
from agent.controller import AlreadyRunningError, Controller
from agent.events.trace import create_trace, read_trace
from agent.events.trace_source import TraceSource
from agent.kernel.kernel_filter import kernel_settings
from agent.kernel.ring_buffer import RAW_EVENT
from agent.replay import ReplayResult, replay_trace
from agent.service.status_server import query_status
from agent.service.stop_signal import StopSignal
from agent.storage.spool import Spool
from agent.storage.ulid import new_ulid
from tests.evidence import make_events, wait_until

CONFIG = Path(__file__).parents[2] / "config" / "config.yaml"
DEADLINE_SEC = 60


@pytest.fixture
def config(tmp_path: Path) -> Config:
    loaded = load_config(CONFIG).config
    return replace(loaded, aod_output_dir=tmp_path / "spool")


def write_trace(path: Path, events: np.ndarray) -> Path:
    with create_trace(path, {"wall_offset_ns": 0}) as writer:
        writer.write(events)
    return path


def slow_reads(count: int, gap_ms: int = 10, latency_ms: int = 600) -> np.ndarray:
    events = make_events(count)
    events["smbcommand"] = 8
    events["metric_latency_ns"] = latency_ms * 1_000_000
    events["cmd_end_time_ns"] = 10**9 + np.arange(count, dtype=np.uint64) * gap_ms * 1_000_000
    return events


def source_of(config: Config, events: np.ndarray) -> TraceSource:
    path = write_trace(config.aod_output_dir.parent / "events.trace", events)
    settings = kernel_settings(config.guardian.anomalies.values())
    return TraceSource(read_trace(path), settings, 0, StopSignal())


def controller_for(config: Config, events: np.ndarray, runtime: Path | None) -> Controller:
    source = source_of(config, events)
    return Controller(config, lambda stop: source, lambda: {"state": "replay"}, runtime)


def replay(config: Config, events: np.ndarray, speed: float = 0) -> ReplayResult:
    """Replays ``events`` into the configuration's spool, to the end."""
    trace = write_trace(config.aod_output_dir.parent / "t.trace", events)
    return replay_trace(trace, config, config.aod_output_dir, speed, StopSignal())


def later(events: np.ndarray, seconds: int) -> np.ndarray:
    moved = events.copy()
    moved["cmd_end_time_ns"] += np.uint64(seconds * 10**9)
    return moved


def test_a_slow_phase_is_one_bundle_with_its_events(config: Config) -> None:
    events = np.concatenate([make_events(50), slow_reads(200)])
    events["metric_latency_ns"][:50] = 1_000_000
    result = replay(config, events)
    assert (result.commands, result.reported, result.incidents) == (250, 200, 1)
    (manifest,) = result.manifests
    assert manifest["anomaly"] == "slow_commands"
    assert manifest["reason"] == (
        "SMB2_READ: 5 commands over 500 ms in 10 s, worst 600 ms, by backup[4242]"
    )
    assert manifest["source"]["kind"] == "replay"


def test_what_stays_below_the_limits_makes_nothing(config: Config) -> None:
    result = replay(config, slow_reads(5_000, latency_ms=199))
    assert (result.commands, result.reported, result.manifests) == (5_000, 0, ())


def test_a_paced_replay_equals_a_fast_one(config: Config, tmp_path: Path) -> None:
    fast = replay(config, slow_reads(60))
    paced = replay(replace(config, aod_output_dir=tmp_path / "paced"), slow_reads(60), speed=5)
    assert (fast.reported, fast.incidents) == (paced.reported, paced.incidents) == (60, 1)


def test_a_replay_collects_every_incident_however_fast_it_plays(config: Config) -> None:
    events = np.concatenate([later(slow_reads(20), 120 * number) for number in range(40)])
    result = replay(config, events)
    assert (result.incidents, len(result.manifests)) == (40, 40)
    assert (result.failed_collections, result.refused) == (0, 0)


def test_trouble_that_lasts_gets_its_bundle_once_there_is_room_again(config: Config) -> None:
    controller = controller_for(config, slow_reads(1), None)
    controller.start()
    staging = controller.spool.staging
    try:
        staging.rmdir()
        staging.write_text("no directory")
        feed(controller, slow_reads(20))
        wait_until(lambda: controller.collector.statistics().failed == 1)
        staging.unlink()
        staging.mkdir()
        feed(controller, later(slow_reads(20), 30))
        feed(controller, later(slow_reads(20), 61))
        wait_until(lambda: controller.collector.statistics().collected == 1)
    finally:
        controller.shutdown()
    assert controller.watcher.incidents.opened == 1
    assert len(controller.spool.finished()) == 1


def feed(controller: Controller, events: np.ndarray) -> None:
    """Put events into the recorder, as the dispatcher does; returns when they were examined."""
    controller.recorder.append(events.view(RAW_EVENT))
    wait_until(lambda: controller.watcher.position == controller.recorder.appended)


def test_a_spool_serves_one_agent_at_a_time(config: Config, tmp_path: Path) -> None:
    first = controller_for(config, slow_reads(1), None)
    first.start()
    try:
        with pytest.raises(AlreadyRunningError, match="another agent uses"):
            controller_for(config, slow_reads(1), None).start()
    finally:
        first.shutdown()
    again = controller_for(config, slow_reads(1), None)
    again.start()
    again.shutdown()


def test_a_spool_that_vanishes_is_made_anew_and_the_bundle_lands_in_it(config: Config) -> None:
    source = source_of(config, slow_reads(100))
    gate = threading.Event()

    def open_source(stop: StopSignal) -> TraceSource:
        gate.wait(DEADLINE_SEC)
        return source

    controller = Controller(config, open_source, dict, None)
    controller.start()
    shutil.rmtree(config.aod_output_dir)
    gate.set()
    controller.drain(StopSignal())
    controller.shutdown()
    assert len(controller.spool.finished()) == 1
    assert controller.collector.statistics().failed == 0


def test_status_accounts_for_every_event_and_bundle(config: Config, tmp_path: Path) -> None:
    controller = controller_for(config, slow_reads(300), tmp_path / "run")
    controller.start()
    try:
        controller.drain(StopSignal())
        deadline = time.monotonic() + DEADLINE_SEC
        while (status := query_status(tmp_path / "run"))["bundles"]["made"] < 1:
            assert time.monotonic() < deadline, status
        assert status["events"]["dispatched"] == status["events"]["examined"] == 300
        incidents = status["incidents"]
        assert (incidents["opened"], incidents["ended"]) == (1, 0)
        assert incidents["suppressed"] == status["events"]["batches"] - 1
        (lasting,) = incidents["open"]
        assert lasting["rules"] == {"slow_commands": status["events"]["batches"]}
        assert len(lasting["bundles"]) == 1
        assert status["bundles"]["pending"] == 1
        assert set(status["components"]) == {
            "EventDispatcher",
            "AnomalyWatcher",
            "LogCollector",
            "SpaceWatcher",
            "StatusServer",
        }
        json.dumps(status)
    finally:
        controller.shutdown()


def test_shutdown_waits_for_the_collection_in_flight(config: Config, tmp_path: Path) -> None:
    controller = controller_for(config, slow_reads(50), None)
    controller.start()
    wait_until(lambda: controller.collector.statistics().running == 1)
    assert controller.shutdown()
    assert len(controller.spool.finished()) == 1
    assert list(controller.spool.staging.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_command_ends_cleanly_on_a_signal(tmp_path: Path, number: signal.Signals) -> None:
    agent = start_agent(tmp_path)
    try:
        wait_for_status(tmp_path)
        agent.send_signal(number)
        assert agent.wait(DEADLINE_SEC) == 0
    finally:
        agent.kill()
        agent.wait()
    assert not (tmp_path / "run" / "agent.sock").exists()


def test_a_killed_command_leaves_a_spool_the_next_one_takes_over(tmp_path: Path) -> None:
    leftover = Spool(tmp_path / "spool").staging / new_ulid()
    for _ in range(3):
        agent = start_agent(tmp_path)
        try:
            wait_for_status(tmp_path)
            assert not leftover.exists()
            leftover.mkdir()
        finally:
            agent.kill()
            agent.wait()


def start_agent(tmp_path: Path) -> subprocess.Popen[bytes]:
    """``aod-agent run`` with a spool of its own; without cifs it waits, or says what it lacks."""
    text = CONFIG.read_text().replace("/var/log/aod", str(tmp_path / "spool"))
    (tmp_path / "config.yaml").write_text(text)
    return subprocess.Popen(
        [sys.executable, "-m", "agent.cli", "run", "--config", str(tmp_path / "config.yaml")],
        env={**os.environ, "RUNTIME_DIRECTORY": str(tmp_path / "run")},
        stderr=subprocess.DEVNULL,
        cwd=Path(__file__).parents[2],
    )


def wait_for_status(tmp_path: Path) -> None:
    deadline = time.monotonic() + DEADLINE_SEC
    command = [sys.executable, "-m", "agent.cli", "status", "--runtime-dir", str(tmp_path / "run")]
    while subprocess.run(command, capture_output=True, check=False).returncode:
        assert time.monotonic() < deadline, "the agent does not answer"
