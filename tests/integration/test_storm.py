"""A million events a second: nothing is lost uncounted, and it is one incident."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from agent.config_loader import load_config
from agent.kernel.probe import load_probe
from tests.ebpf_host import PRCTL_LOADER, ebpf_host, wait_until
from tests.event_storm import storm
from tests.lab.replay import without_actions
from tests.live_agent import CONFIG, LiveAgent

# It measures what this machine can do at most.
pytestmark = [pytest.mark.ebpf, pytest.mark.alone]
__all__ = ["ebpf_host"]

RATE = 1_000_000
SECONDS = 10


def test_a_storm_of_events_is_one_incident(
    ebpf_host: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = replace(without_actions(load_config(CONFIG).config), aod_output_dir=tmp_path / "spool")
    agent = LiveAgent(config, tmp_path / "run", load_probe(command=PRCTL_LOADER))
    try:
        seen = storm(agent, RATE, SECONDS)
        wait_until(lambda: agent.status()["bundles"]["made"] > 0, "the incident's bundle")
        status = agent.status()
    finally:
        assert agent.controller.shutdown()
    events = status["events"]
    with capsys.disabled():
        print(f"\n{seen.rate:,.0f} events/s, {events['ring_full'] / seen.sent:.2%} lost")
    assert events["events"] + events["ring_full"] == seen.sent
    assert events["examined"] == events["dispatched"] == events["events"]
    assert events["bad_records"] == 0
    assert len(status["incidents"]["open"]) == status["incidents"]["opened"] == 1
    assert set(status["incidents"]["open"][0]["rules"]) == {"slow_commands", "failed_commands"}
    assert [bundle.id for bundle in agent.controller.spool.finished()] == (
        status["incidents"]["open"][0]["bundles"]
    )
    assert {c["state"] for c in status["components"].values()} == {"running"}
    assert {(c["restarts"], c["last_fault"]) for c in status["components"].values()} == {(0, "")}
