"""The lab's catalogue, and episodes on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from agent.events.trace import create_trace
from bpf.abi import EVENT
from tests.lab import impact
from tests.lab.catalogue import CATALOGUE, UnknownClassError, draw, is_held_out, matching
from tests.lab.episode_store import (
    BUNDLES,
    DONE,
    EVENTS,
    FAULT,
    LABELS,
    NORMAL,
    TELEMETRY,
    TRACE,
    Episode,
    begin_episode,
    finish_episode,
    finished_episodes,
    keep_episode,
    write_rows,
)

SEC = 1_000_000_000


def make_episode(root: Path, latencies_ms: dict[float, float], fault: bool = True) -> Episode:
    """Commands that end at the given seconds; the fault lasts from 10 s to 20 s."""
    affected = {"slow_ms": 200, "errors": []}
    directory = begin_episode(root, {"class": "delay", "seed": 1, "affected": affected})
    events = np.zeros(len(latencies_ms), EVENT)
    events["cmd_end_time_ns"] = [round(at * SEC) for at in latencies_ms]
    events["metric_latency_ns"] = [round(ms * 1e6) for ms in latencies_ms.values()]
    with create_trace(directory / TRACE, {"kernel": "6.1"}) as writer:
        writer.write(events)
    phases = [("before", 0, 10, NORMAL), ("fault", 10, 20, FAULT)][: 1 + fault]
    names = ("name", "begin_mono_ns", "end_mono_ns", "label")
    rows = [(name, begin * SEC, end * SEC, label) for name, begin, end, label in phases]
    write_rows(directory / LABELS, [dict(zip(names, row, strict=True)) for row in rows])
    for name in (EVENTS, TELEMETRY, BUNDLES):
        write_rows(directory / name, [{"id": "A"}])
    return finish_episode(directory)


BUSY_FAULT = dict.fromkeys(range(11, 20), 5.0)


@pytest.mark.parametrize("name", CATALOGUE)
def test_a_seed_always_draws_the_same_within_its_bounds(name: str) -> None:
    case = draw(name, 2)
    assert case == draw(name, 2)
    for key, (low, high) in case.episode_class.draws.items():
        assert low <= case.parameters[key] <= high
    low, high = case.episode_class.fault_sec
    assert low <= case.fault_sec <= high
    fault = case.fault()
    assert case.innocent is (fault is None)
    assert bool(case.episode_class.expected) is not case.innocent


def test_seeds_differ() -> None:
    assert len({draw("delay_large", seed).parameters["delay_ms"] for seed in range(8)}) > 1


def test_every_fourth_seed_is_held_out() -> None:
    assert [seed for seed in range(8) if is_held_out(seed)] == [3, 7]


def test_patterns_choose_classes() -> None:
    assert matching("delay_*, idle") == ["delay_small", "delay_large", "delay_jitter", "idle"]
    with pytest.raises(UnknownClassError, match="no class matches 'nothing'"):
        matching("nothing")


def test_an_episode_is_seen_once_it_is_done(tmp_path: Path) -> None:
    made = make_episode(tmp_path, {1: 5, 12: 250})
    (found,) = finished_episodes(tmp_path)
    assert found == made
    assert [phase.label for phase in found.phases()] == [NORMAL, FAULT]
    assert found.bundles() == [{"id": "A"}]
    assert len(found.trace().events) == 2
    (found.directory / DONE).unlink()
    assert finished_episodes(tmp_path) == []


def test_a_kept_episode_reads_as_the_original(tmp_path: Path) -> None:
    made = make_episode(tmp_path / "lab", {1: 5, 12: 250})
    for _ in range(2):
        kept = keep_episode(made, tmp_path / "kept")
    assert kept.name == "delay-1"
    (found,) = finished_episodes(tmp_path / "kept")
    assert (found.meta, found.phases(), found.bundles()) == (
        made.meta,
        made.phases(),
        made.bundles(),
    )
    assert np.array_equal(found.trace().events, made.trace().events)


def test_a_fault_that_slows_commands_has_an_impact(tmp_path: Path) -> None:
    summary = impact.check_impact(make_episode(tmp_path, {1: 5, **BUSY_FAULT, 12: 250}))
    assert "1 affected up to 250 ms" in summary


def test_a_fault_that_silences_commands_has_an_impact(tmp_path: Path) -> None:
    assert "silence 8.0 s" in impact.check_impact(make_episode(tmp_path, {1: 5, 12: 5}))


def test_a_fault_that_touches_nothing_is_reported(tmp_path: Path) -> None:
    with pytest.raises(impact.NoImpactError, match="touched no command"):
        impact.check_impact(make_episode(tmp_path, {1: 5, **BUSY_FAULT}))


@pytest.mark.parametrize("fault", [True, False])
def test_a_slow_command_without_a_fault_is_reported(tmp_path: Path, fault: bool) -> None:
    episode = make_episode(tmp_path, {5: 1100, **(BUSY_FAULT | {12: 250})}, fault)
    with pytest.raises(impact.BusyMachineError, match="to 1100 ms"):
        impact.check_impact(episode)


def test_one_slower_command_in_hundreds_is_normal(tmp_path: Path) -> None:
    normal = {1 + i / 100: 5 for i in range(400)}
    summary = impact.check_impact(make_episode(tmp_path, {**normal, 5.5: 300, 12: 250}))
    assert "normal up to 300 ms" in summary
    slower = dict.fromkeys(list(normal)[:8], 300)
    with pytest.raises(impact.BusyMachineError, match="300 to 300 ms"):
        impact.check_impact(make_episode(tmp_path, {**normal, **slower, 12: 250}))
