"""The agent over a real kernel program: what happens in the kernel shows in bundles and status."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.config_loader import load_config
from agent.controller import Controller
from agent.kernel.hand_over import ProbeFault
from agent.kernel.kernel_filter import kernel_settings
from agent.kernel.probe import Probe, load_probe
from agent.kernel.probe_opener import ProbeOpener
from agent.service.status_server import query_status
from tests.ebpf_host import PRCTL_LOADER, ebpf_host, wait_until
from tests.live_agent import CONFIG, LiveAgent

pytestmark = pytest.mark.ebpf
__all__ = ["ebpf_host"]

READ, CREATE, EACCES = 8, 5, 13


@pytest.fixture
def start(ebpf_host: None, tmp_path: Path) -> Iterator[Callable[..., LiveAgent]]:
    """Starts an agent with ``ring_pages``; it is shut down after the test."""
    agents: list[LiveAgent] = []

    def start(ring_pages: int = 256, **watcher: Any) -> LiveAgent:
        loaded = load_config(CONFIG).config
        config = replace(
            loaded,
            watch_interval_sec=3600,  # however slowly a test goes on
            aod_output_dir=tmp_path / "spool",
            watcher=replace(loaded.watcher, **watcher),
        )
        probe = load_probe(ring_pages=ring_pages, command=PRCTL_LOADER)
        agents.append(LiveAgent(config, tmp_path / "run", probe))
        return agents[-1]

    yield start
    for agent in agents:
        agent.controller.shutdown()


def test_a_slow_command_in_the_kernel_becomes_a_bundle(start: Callable[..., LiveAgent]) -> None:
    agent = start()
    agent.slow(READ, 1.5)
    wait_until(lambda: agent.status()["bundles"]["made"] == 1, "a bundle")
    (bundle,) = agent.controller.spool.finished()
    manifest = bundle.manifest()
    assert manifest["anomaly"] == "slow_commands"
    assert "SMB2_READ took 1.5 s" in manifest["reason"]
    assert manifest["source"]["kind"] == "kernel"
    assert manifest["source"]["headers"]["path"]
    assert manifest["counters"]["events"] == 1


def test_failures_in_the_kernel_become_a_bundle(start: Callable[..., LiveAgent]) -> None:
    agent = start()
    for _ in range(9):
        agent.slow(CREATE, 0, errno=EACCES)
    wait_until(lambda: agent.status()["events"]["examined"] == 9, "nine failures")
    assert agent.status()["incidents"]["opened"] == 0
    agent.slow(CREATE, 0, errno=EACCES)
    wait_until(lambda: agent.status()["bundles"]["made"] == 1, "a bundle at the tenth")
    (bundle,) = agent.controller.spool.finished()
    reason = bundle.manifest()["reason"]
    assert reason.startswith("SMB2_CREATE: 10 commands failed with EACCES in 3600 s, by ")


def test_a_restarted_agent_goes_on_with_its_incident(start: Callable[..., LiveAgent]) -> None:
    first = start()
    first.slow(READ, 1.5)
    wait_until(lambda: first.status()["bundles"]["made"] == 1, "a bundle")
    (lasting,) = first.status()["incidents"]["open"]
    first.controller.shutdown()

    second = start()
    second.slow(READ, 1.5)
    wait_until(lambda: second.status()["incidents"]["suppressed"] == 1, "the same incident")
    status = second.status()
    assert (status["incidents"]["opened"], status["bundles"]["made"]) == (0, 1)
    (resumed,) = status["incidents"]["open"]
    assert (resumed["id"], resumed["bundles"]) == (lasting["id"], lasting["bundles"])
    assert resumed["rules"] == {"slow_commands": 2}


def test_every_event_is_examined_or_counted_as_lost(start: Callable[..., LiveAgent]) -> None:
    agent = start(ring_pages=1, batch_linger_sec=0.5)
    sent = 2_000
    for _ in range(sent):
        agent.slow(CREATE, 0.3)
    wait_until(
        lambda: sum(agent.status()["events"][part] for part in ("examined", "ring_full")) == sent,
        "every event is accounted for",
    )
    events = agent.status()["events"]
    assert events["ring_full"] > 0
    assert events["dispatched"] == events["examined"] == events["events"] > 0


def test_noise_in_the_ring_is_counted_and_survived(start: Callable[..., LiveAgent]) -> None:
    agent = start()
    # A consumer position that makes no sense. The kernel wakes nobody then; the watchdog does.
    agent.source._reader._consumer[0] += 4
    agent.slow(READ, 0.6)
    agent.controller.dispatcher.wake()
    wait_until(lambda: agent.status()["events"]["bad_records"] > 0, "the noise is counted")
    agent.slow(READ, 1.5)
    wait_until(lambda: agent.status()["bundles"]["made"] == 1, "and the next event is seen")
    faults = {state["last_fault"] for state in agent.status()["components"].values()}
    assert faults == {""}


def test_a_spool_removed_under_the_agent_is_made_anew(start: Callable[..., LiveAgent]) -> None:
    agent = start()
    shutil.rmtree(agent.controller.spool.root)
    agent.slow(READ, 1.5)
    wait_until(lambda: agent.status()["bundles"]["made"] == 1, "a bundle in the new spool")


def test_no_event_costs_no_wake_up(start: Callable[..., LiveAgent]) -> None:
    agent = start()
    wait_until(lambda: agent.controller.dispatcher.beats == 1, "the loop waits")
    before = agent.controller.dispatcher.beats
    for _ in range(500):
        agent.kernel.run(READ)
    assert int(agent.kernel.probe.histograms.sum()) == 500
    assert agent.controller.dispatcher.beats == before
    agent.slow(READ, 1.5)
    wait_until(lambda: agent.controller.dispatcher.beats > before, "a slow one does")


@pytest.mark.parametrize("kind", ["no_cifs", "timeout"])
def test_a_loader_that_cannot_load_is_shown_with_its_remedy(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(**_: object) -> Probe:
        raise ProbeFault(kind, "what is wrong", "what to do")

    monkeypatch.setattr("agent.kernel.probe_opener.wait_for_cifs", lambda stop_fd: True)
    monkeypatch.setattr("agent.kernel.probe_opener.load_probe", fail)
    config = replace(load_config(CONFIG).config, aod_output_dir=tmp_path / "spool")
    opener = ProbeOpener(kernel_settings(config.guardian.anomalies.values()))
    controller = Controller(config, opener, lambda: opener.state, tmp_path / "run")
    controller.start()
    try:
        wait_until(
            lambda: query_status(tmp_path / "run")["source"].get("kind") == kind, "the fault shows"
        )
        status = query_status(tmp_path / "run")
        assert status["source"]["remedy"] == "what to do"
        assert "what is wrong" in status["components"]["EventDispatcher"]["last_fault"]
        json.dumps(status)
    finally:
        controller.shutdown()
