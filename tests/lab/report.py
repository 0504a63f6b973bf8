"""The score as a table for people and as JSON for machines."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

from agent.storage.durable_file import publish_bytes
from tests.lab.score import EpisodeScore, GroupScore, by_class, percentile, score_group

COLUMNS = (
    "class",
    "episodes",
    "recalled",
    "false bundles",
    "median delay",
    "p95 delay",
    "median since fault",
    "bundles/incident",
    "types that fired",
)
TUNED, HELD_OUT = "tuned", "held out"


def text(scores: Sequence[EpisodeScore]) -> str:
    """Aligned tables for a terminal, the totals below."""
    parts = []
    for title, part in split(scores):
        rows = [list(COLUMNS), *(_cells(group) for group in _groups(part))]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
        parts.append("\n".join([f"== {title} seeds", *lines, "", *_totals(part)]))
    return "\n\n".join(parts)


def markdown(scores: Sequence[EpisodeScore], command: str, kernels: Sequence[str]) -> str:
    """The page docs/lab.md."""
    lines = [
        "# How well faults are found",
        "",
        f"Made by `{command}` on {date.today().isoformat()}, kernel {', '.join(kernels)}.",
        "",
        "Each episode is a load on a real SMB mount with a fault in its midst, or with none. It is",
        "recalled when a bundle's trigger lies within the fault or 5 s after; any other bundle is",
        "false. The delay is from the first affected command to the trigger: from its end, or from",
        "its start if it had no answer yet (a hang); where commands vanished without a record,",
        "from the begin of the fault. Held-out seeds are not looked at when rules are tuned.",
        "",
        "An episode in whose normal phases 1 % of the commands took 200 ms, or one took 1 s, is",
        "run again, up to three times: then the emulated guest itself was starved, which is no",
        "fault of the share's and no normal work either. So these figures say nothing of clients",
        "that are starved themselves.",
    ]
    for title, part in split(scores):
        rows = [list(COLUMNS), ["---"] * len(COLUMNS), *(_cells(group) for group in _groups(part))]
        lines += ["", f"## {title.capitalize()} seeds", ""]
        lines += [f"| {' | '.join(row)} |" for row in rows]
        lines += ["", *(f"* {line}" for line in _totals(part))]
    return "\n".join(lines) + "\n"


def write_json(path: Path, scores: Sequence[EpisodeScore], command: str) -> None:
    """Every number of the tables, and each episode."""
    document: dict[str, Any] = {"command": command, "episodes": [asdict(score) for score in scores]}
    for title, part in split(scores):
        document[title.replace(" ", "_")] = [_numbers(group) for group in _groups(part)]
    path.parent.mkdir(parents=True, exist_ok=True)
    publish_bytes(path, json.dumps(document, indent=2).encode() + b"\n")


def split(scores: Sequence[EpisodeScore]) -> list[tuple[str, list[EpisodeScore]]]:
    """Tuned and held-out episodes apart; a part without episodes is left out."""
    parts = (
        (TUNED, [score for score in scores if not score.held_out]),
        (HELD_OUT, [score for score in scores if score.held_out]),
    )
    return [(title, part) for title, part in parts if part]


def _groups(scores: Sequence[EpisodeScore]) -> list[GroupScore]:
    return [*by_class(scores), score_group("all", scores)]


def _cells(group: GroupScore) -> list[str]:
    return [
        group.name,
        str(group.episodes),
        f"{group.recalled}/{group.faults}" if group.faults else "-",
        str(group.false_bundles),
        _seconds(percentile(group.delays_sec, 50)),
        _seconds(percentile(group.delays_sec, 95)),
        _seconds(percentile(group.since_fault_sec, 50)),
        "-" if group.bundles_per_incident is None else f"{group.bundles_per_incident:.1f}",
        ", ".join(group.types) or "-",
    ]


def _totals(scores: Sequence[EpisodeScore]) -> list[str]:
    group = score_group("all", scores)
    hangs = group.hang_delays_sec
    return [
        f"recall {_percent(group.recall)} ({group.recalled} of {group.faults} fault episodes)",
        f"precision {_percent(group.precision)} "
        f"({group.true_incidents} of {group.incidents} incidents)",
        f"delay median {_seconds(percentile(group.delays_sec, 50))}, "
        f"p95 {_seconds(percentile(group.delays_sec, 95))} ({len(group.delays_sec)} episodes)",
        f"of these unanswered: median {_seconds(percentile(hangs, 50))}, "
        f"p95 {_seconds(percentile(hangs, 95))} ({len(hangs)} episodes)",
    ]


def _numbers(group: GroupScore) -> dict[str, Any]:
    return {
        **asdict(group),
        "recall": group.recall,
        "precision": group.precision,
        "bundles_per_incident": group.bundles_per_incident,
        "delay_median_sec": percentile(group.delays_sec, 50),
        "delay_p95_sec": percentile(group.delays_sec, 95),
        "hang_delay_median_sec": percentile(group.hang_delays_sec, 50),
        "hang_delay_p95_sec": percentile(group.hang_delays_sec, 95),
    }


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} s"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"
