"""The lab's score, on episodes made by hand."""

from __future__ import annotations

import errno
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bpf.abi import EVENT
from tests.lab import report
from tests.lab.episode_store import FAULT, NORMAL, Phase
from tests.lab.impact import ERROR, SILENT, SLOW, UNANSWERED, Interval, fault_interval
from tests.lab.score import EpisodeScore, by_class, score_episode, score_group

SEC = 1_000_000_000
FAULT_10_20 = Interval(10 * SEC, 20 * SEC)
META = {
    "class": "delay",
    "seed": 0,
    "held_out": False,
    "affected": {"slow_ms": 200, "errors": ["ENOSPC"]},
}


def commands(*rows: tuple[float, float, int]) -> NDArray[np.void]:
    """(start, end, errno) in seconds; in the order of their ends, as in a trace."""
    events = np.zeros(len(rows), EVENT)
    for event, (start, end, code) in zip(events, sorted(rows, key=lambda r: r[1]), strict=True):
        event["cmd_end_time_ns"] = round(end * SEC)
        event["metric_latency_ns"] = round((end - start) * SEC)
        event["retval"] = -code
    return events


def manifest(trigger: float, incident: str | None = None, kind: str = "latency") -> dict[str, Any]:
    made = {"id": f"B{trigger}", "type": kind, "trigger": {"time_ns": round(trigger * SEC)}}
    return made if incident is None else {**made, "incident": {"id": incident}}


def judge(
    *manifests: dict[str, Any],
    fault: Interval | None = FAULT_10_20,
    events: NDArray[np.void] | None = None,
    **meta: object,
) -> EpisodeScore:
    trace = commands((12, 12.5, 0)) if events is None else events
    return score_episode({**META, **meta}, fault, trace, manifests)


@pytest.mark.parametrize(
    ("trigger", "recalled"), [(9.9, False), (10, True), (20, True), (25, True), (25.1, False)]
)
def test_a_trigger_counts_from_the_fault_to_the_end_of_the_grace(trigger, recalled) -> None:
    score = judge(manifest(trigger))
    assert score.recalled is recalled
    assert score.false_bundles == (not recalled)
    assert (score.true_incidents, score.incidents) == (int(recalled), 1)


def test_no_bundle_in_a_fault_is_a_miss_and_nothing_false() -> None:
    score = judge()
    assert (score.recalled, score.false_bundles, score.delay_sec) == (False, 0, None)


def test_every_bundle_of_an_innocent_episode_is_false() -> None:
    score = judge(manifest(12), manifest(13), fault=None)
    assert score.innocent
    assert (score.false_bundles, score.incidents, score.true_incidents) == (2, 2, 0)
    assert score.delay_sec is None


def test_a_follow_up_shares_the_truth_of_its_incident() -> None:
    score = judge(manifest(40, "A"), manifest(12, "A"), manifest(41, "B"))
    assert (score.bundles, score.false_bundles) == (3, 1)
    assert (score.incidents, score.true_incidents) == (2, 1)


def test_the_delay_of_a_slow_command_begins_at_its_end() -> None:
    events = commands((8, 8.5, 0), (11, 11.01, 0), (12, 12.5, 0), (12.1, 12.7, 0))
    score = judge(manifest(14), events=events)
    assert score.first_affected == SLOW
    assert score.delay_sec == pytest.approx(1.5)
    assert score.since_fault_sec == pytest.approx(4)


def test_the_delay_of_a_failed_command_begins_at_its_end() -> None:
    events = commands((11, 11.1, errno.ENOENT), (12, 12.1, errno.ENOSPC))
    score = judge(manifest(14), events=events)
    assert score.first_affected == ERROR
    assert score.delay_sec == pytest.approx(1.9)


def test_the_delay_of_a_hang_begins_at_the_start_of_the_command() -> None:
    events = commands((11, 22, 0), (12, 21, 0))
    score = judge(manifest(15), events=events)
    assert score.first_affected == UNANSWERED
    assert score.delay_sec == pytest.approx(4)


def test_a_command_from_before_the_fault_counts_if_the_fault_held_it_up() -> None:
    score = judge(manifest(15), events=commands((9, 9.5, 0), (9.8, 14, 0)))
    assert score.delay_sec == pytest.approx(1)


def test_without_any_affected_command_the_delay_begins_with_the_fault() -> None:
    score = judge(manifest(13), events=commands((11, 11.01, 0), (14, 15, 0)))
    assert score.first_affected == SILENT
    assert score.delay_sec == pytest.approx(3)


def test_the_first_of_several_true_bundles_gives_the_delay() -> None:
    score = judge(manifest(18, kind="stall"), manifest(13), manifest(5, kind="error"))
    assert score.delay_sec == pytest.approx(0.5)
    assert score.types == ("error", "latency", "stall")


def test_groups_add_up() -> None:
    scores = [
        judge(manifest(14), manifest(15, "A"), manifest(16, "A"), manifest(30)),
        judge(),
        judge(manifest(12), fault=None, **{"class": "idle"}),
    ]
    group = score_group("all", scores)
    assert (group.episodes, group.faults, group.recalled) == (3, 2, 1)
    assert group.recall == pytest.approx(1 / 2)
    assert group.precision == pytest.approx(2 / 4)
    assert group.bundles_per_incident == pytest.approx(5 / 4)
    assert (group.bundles, group.false_bundles) == (5, 2)
    assert [part.name for part in by_class(scores)] == ["delay", "idle"]


def test_hangs_are_reported_apart() -> None:
    hang = judge(manifest(15), events=commands((11, 22, 0)))
    group = score_group("all", [hang, judge(manifest(14))])
    assert group.hang_delays_sec == pytest.approx([4])
    assert group.delays_sec == pytest.approx([4, 1.5])


def test_ratios_of_nothing_are_none() -> None:
    group = score_group("idle", [judge(fault=None)])
    assert (group.recall, group.precision, group.bundles_per_incident) == (None, None, None)


def test_the_interval_reaches_over_all_fault_phases() -> None:
    phases = [
        Phase("before", 0, 10, NORMAL),
        Phase("fault", 10, 20, FAULT),
        Phase("recovery", 20, 23, FAULT),
        Phase("after", 23, 30, NORMAL),
    ]
    assert fault_interval(phases) == Interval(10, 23)
    assert fault_interval(phases[:1]) is None


def test_the_tables_keep_held_out_seeds_apart() -> None:
    scores = [judge(manifest(14)), judge(seed=3, held_out=True)]
    shown = report.text(scores)
    tuned, held_out = shown.split("== held out seeds")
    assert "recall 100.0 % (1 of 1" in tuned
    assert "recall 0.0 % (0 of 1" in held_out
    page = report.markdown(scores, "make lab", ["6.1"])
    assert "| delay | 1 | 1/1 | 0 | 1.50 s | 1.50 s | 4.00 s | 1.0 | latency |" in page
    assert "| delay | 1 | 0/1 | 0 | - | - | - | - | - |" in page


def test_an_episode_is_right_when_its_fault_is_found_and_nothing_else() -> None:
    assert judge(manifest(12, "a")).right
    assert judge(manifest(12, "a"), manifest(24, "b")).right
    assert judge(fault=None).right
    assert not judge().right
    assert not judge(manifest(9), manifest(12)).right
    assert not judge(manifest(12), fault=None).right
