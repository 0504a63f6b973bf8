"""A million events a second through the whole agent: what is lost, and what it costs."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from agent.config_loader import load_config
from agent.kernel.probe import load_probe
from tests.bench.figure import Figure
from tests.ebpf_host import PRCTL_LOADER
from tests.event_storm import storm
from tests.live_agent import CONFIG, LiveAgent

RATE = 1_000_000
SECONDS = 10


def measure() -> list[Figure]:
    """A real ring, the shipped configuration, one incident with its bundle on the way."""
    with tempfile.TemporaryDirectory() as directory:
        config = replace(load_config(CONFIG).config, aod_output_dir=Path(directory, "spool"))
        agent = LiveAgent(config, Path(directory, "run"), load_probe(command=PRCTL_LOADER))
        try:
            seen = storm(agent, RATE, SECONDS)
            lost = agent.status()["events"]["ring_full"]
        finally:
            agent.controller.shutdown()
    return [
        Figure("storm: events sent per second", seen.rate, "1/s"),
        Figure("storm: events lost, all of them counted", 100 * lost / seen.sent, "%"),
        Figure("storm: the agent's CPU time per second", seen.cpu_sec / seen.seconds, "s"),
        Figure("storm: the same per event", seen.cpu_sec / seen.sent * 1e9, "ns"),
    ]
