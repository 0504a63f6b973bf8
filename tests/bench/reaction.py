"""From the end of a slow command to the start of the first action, on a live agent."""

from __future__ import annotations

import statistics
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path

from agent.config_loader import load_config
from agent.kernel.probe import load_probe
from tests.bench.figure import Figure
from tests.ebpf_host import PRCTL_LOADER, wait_until
from tests.live_agent import CONFIG, LiveAgent

TRIGGERS = 20
READ = 8


def measure() -> list[Figure]:
    """One incident after the other, each of a session of its own; the first starts the collector.

    The configuration is the shipped one, but for the wait at the end of a collection and the
    quiet that ends an incident.
    """
    config = load_config(CONFIG).config
    config = replace(
        config,
        collection=replace(config.collection, after_sec=0),
        # The sessions are of no server that is known: else all would be one incident.
        watcher=replace(config.watcher, incident_quiet_sec=0.01),
    )
    with tempfile.TemporaryDirectory() as directory:
        config = replace(config, aod_output_dir=Path(directory, "spool"))
        agent = LiveAgent(config, Path(directory, "run"), load_probe(command=PRCTL_LOADER))
        try:
            for number in range(TRIGGERS):
                agent.slow(READ, 1.5, session=number + 1)
                wait_until(partial(has_made, agent, number + 1), "a bundle")
            delays = [
                float(bundle.manifest()["collection"]["delay_ms"])
                for bundle in agent.controller.spool.finished()
            ]
        finally:
            agent.controller.shutdown()
    assert len(delays) == TRIGGERS
    return [
        Figure(f"trigger to first action, median of {TRIGGERS}", statistics.median(delays), "ms"),
        Figure("trigger to first action, the longest", max(delays), "ms", "100 or less"),
    ]


def has_made(agent: LiveAgent, count: int) -> bool:
    """Whether so many bundles are in the spool."""
    return agent.controller.spool.counts().made >= count
