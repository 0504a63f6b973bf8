"""Drift: a command takes several times what it usually takes here, below any fixed limit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from agent.anomaly_types.anomaly_type import AnomalyType
from agent.configuration.rule_lists import commands_without
from agent.configuration.schema import AnomalyConfig
from agent.configuration.settings_reader import Section
from agent.configuration.smb_commands import command_name
from agent.detection.anomaly import Trigger
from agent.detection.anomaly_handler import AnomalyHandler, Finding
from agent.detection.description import duration, seconds
from agent.detection.latency_history import LatencyHistory, quantile_ns
from agent.detection.scene import Scene
from agent.detection.sight import Sight

SECOND_NS = 1_000_000_000
# Waits for a change, for another client, for a copy on the server: no usual duration.
EXEMPT = ("SMB2_ECHO", "SMB2_CHANGE_NOTIFY", "SMB2_LOCK", "SMB2_IOCTL")


@dataclass(frozen=True, kw_only=True)
class DriftRule(AnomalyConfig):
    """``commands`` whose latency at ``quantile_percent`` was ``factor`` times higher, and at least
    ``minimum_shift_ms`` higher, in the last ``recent_sec`` than in the ``baseline_sec`` before;
    only where both hold ``minimum_count`` commands."""

    type: ClassVar[str] = "drift"
    commands: frozenset[int]
    recent_sec: float = 60.0
    baseline_sec: float = 3600.0
    quantile_percent: float = 50.0
    factor: float = 3.0
    minimum_shift_ms: float = 5.0
    minimum_count: int = 50

    def detector(self, window_ns: int) -> DriftAnomalyHandler:
        return DriftAnomalyHandler(self, window_ns)


@dataclass(frozen=True)
class Shift:
    """How one command's latency moved; nanoseconds."""

    command: int
    usual_ns: int
    recent_ns: int
    count: int


class DriftAnomalyHandler(AnomalyHandler[DriftRule]):
    """Looks a few times in each ``recent_sec`` while commands flow.

    What is found drifted is kept out of the baseline, so that the sick does not become the usual
    while an incident is young; after ``baseline_sec`` of it, it is the new usual.
    """

    looks = True

    def __init__(self, rule: DriftRule, window_ns: int) -> None:
        super().__init__(rule, window_ns)
        self._history = LatencyHistory(
            int(rule.recent_sec * SECOND_NS), int(rule.baseline_sec * SECOND_NS)
        )
        self.rest_ns = self._history.slice_ns

    def look(self, sight: Sight) -> Sequence[Finding]:
        self._history.add(sight.time_ns, sight.histograms)
        recent, usual = self._history.recent(), self._history.usual()
        shifts = tuple(
            shift
            for command in sorted(self.rule.commands)
            if (shift := self._shift(command, recent[command], usual[command]))
        )
        self._history.hold(bool(shifts), sight.time_ns)
        return [Finding(sight.time_ns, detail=shifts)] if shifts else ()

    def next_look_ns(self, sight: Sight) -> int | None:
        return self._history.next_ns(sight.time_ns, sight.histograms)

    def describe(self, finding: Finding, scene: Scene) -> Trigger:
        shifts = finding.detail
        assert isinstance(shifts, tuple)  # noqa: S101 - made above
        worst: Shift = max(shifts, key=lambda shift: shift.recent_ns / max(1, shift.usual_ns))
        names = scene.state.server_names()
        place = scene.place(0, 0, server=names[0] if len(names) == 1 else "")
        on = f" on {place}" if str(place) else ""
        others, times = len(shifts) - 1, worst.recent_ns / worst.usual_ns
        return Trigger(
            time_ns=finding.time_ns,
            reason=(
                f"{command_name(worst.command)}{on}: {100 - self.rule.quantile_percent:g} % of "
                f"{worst.count} commands in {seconds(int(self.rule.recent_sec * SECOND_NS))} took "
                f"{duration(worst.recent_ns)} or more, {times:.1f} times the usual "
                f"{duration(worst.usual_ns)}"
                + (f"; {others} other kinds of command drifted too" if others else "")
            ),
            violations=worst.count,
            worst_ns=worst.recent_ns,
            command=worst.command,
            place=place,
        )

    def _shift(
        self, command: int, recent: NDArray[np.float64], usual: NDArray[np.float64]
    ) -> Shift | None:
        rule, count = self.rule, int(recent.sum())
        if count < rule.minimum_count or usual.sum() < rule.minimum_count:
            return None
        quantile = rule.quantile_percent / 100
        recent_ns, usual_ns = quantile_ns(recent, quantile), quantile_ns(usual, quantile)
        if recent_ns < rule.factor * usual_ns:
            return None
        if recent_ns - usual_ns < rule.minimum_shift_ms * 1_000_000:
            return None
        return Shift(command, max(1, int(usual_ns)), int(recent_ns), count)


def read(section: Section, name: str, actions: tuple[str, ...]) -> DriftRule:
    """A drift rule of the configuration."""
    recent_sec = section.number("recent_sec", DriftRule.recent_sec, minimum=1, maximum=86_400)
    return DriftRule(
        name=name,
        actions=actions,
        commands=commands_without(section, EXEMPT),
        recent_sec=recent_sec,
        baseline_sec=section.number(
            "baseline_sec",
            max(DriftRule.baseline_sec, recent_sec),
            minimum=recent_sec,
            maximum=30 * 86_400,
        ),
        quantile_percent=section.number(
            "quantile_percent", DriftRule.quantile_percent, minimum=1, maximum=99.9
        ),
        factor=section.number("factor", DriftRule.factor, minimum=1.1, maximum=1_000),
        minimum_shift_ms=section.number(
            "minimum_shift_ms", DriftRule.minimum_shift_ms, minimum=0, maximum=3_600_000
        ),
        minimum_count=section.integer(
            "minimum_count", DriftRule.minimum_count, minimum=1, maximum=1_000_000
        ),
    )


DRIFT = AnomalyType("drift", read)
