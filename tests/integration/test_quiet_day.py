"""A quiet day is quiet: a recording without trouble, over and over, makes no incident."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from agent.anomaly_types.drift import EXEMPT, DriftRule
from agent.config_loader import load_config
from agent.configuration.schema import Config, GuardianConfig
from agent.configuration.smb_commands import ALL_SMB_CMDS
from agent.events.trace import Trace, read_trace
from agent.replay import ReplayResult, replay
from agent.service.stop_signal import StopSignal

CONFIG = Path(__file__).parents[2] / "config" / "config.yaml"
DATA = Path(__file__).parents[1] / "data"
SECOND = 1_000_000_000
HOUR = 3_600 * SECOND


@pytest.fixture
def config() -> Config:
    """The shipped rules and drift, without what they would collect."""
    loaded = load_config(CONFIG).config
    drift = DriftRule(
        name="drifting",
        commands=frozenset(ALL_SMB_CMDS[name] for name in ALL_SMB_CMDS if name not in EXEMPT),
    )
    rules = {**loaded.guardian.anomalies, drift.name: drift}
    silent = {name: replace(rule, actions=()) for name, rule in rules.items()}
    return replace(loaded, guardian=GuardianConfig(silent))


def repeated(trace: Trace, duration_ns: int) -> Trace:
    """Its commands over and over, later each time, for ``duration_ns``."""
    once = trace.events
    period_ns = trace.duration_ns + trace.duration_ns // len(once)
    rounds = -(-duration_ns // period_ns)
    events = np.tile(once, rounds)
    number = np.repeat(np.arange(rounds, dtype=np.uint64), len(once))
    events["cmd_end_time_ns"] += number * np.uint64(period_ns)
    events["mid"] += number * (once["mid"].max() + np.uint64(1))
    return Trace(trace.meta, events, 0)


def replayed(trace: Trace, config: Config, directory: Path) -> ReplayResult:
    return replay(trace, config, directory / "spool", 0, StopSignal())


@pytest.mark.parametrize("name", ["quiet"])
def test_a_day_without_trouble_has_no_incident(name: str, config: Config, tmp_path: Path) -> None:
    day = repeated(read_trace(DATA / f"{name}.trace"), 24 * HOUR)
    result = replayed(day, config, tmp_path)
    assert result.duration_ns >= 24 * HOUR - SECOND
    assert result.commands > 1_000_000
    assert (result.incidents, result.manifests) == (0, ())


def test_the_same_day_with_slower_reads_at_its_end_drifts(config: Config, tmp_path: Path) -> None:
    """So that the day before proves something: the rules do look."""
    hours = repeated(read_trace(DATA / "quiet.trace"), 2 * HOUR)
    events = hours.events
    last = events["cmd_end_time_ns"] > events["cmd_end_time_ns"].max() - np.uint64(600 * SECOND)
    events["metric_latency_ns"][last] += np.uint64(40_000_000)
    result = replayed(hours, config, tmp_path)
    assert result.incidents == 1
    assert [manifest["anomaly"] for manifest in result.manifests] == ["drifting"]
