"""Rules for tests, with what a test does not care about filled in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from agent.anomaly_types.error import ErrorRule
from agent.anomaly_types.latency import LatencyRule
from agent.anomaly_types.stall import StallRule
from agent.configuration.schema import AnomalyConfig
from agent.detection.anomaly_handler import AnomalyHandler

READ, WRITE, CHANGE_NOTIFY, LOCK = 8, 9, 15, 10
EACCES, EIO = 13, 5


def latency_rule(
    count: int = 1, track: Mapping[int, float] | None = None, **settings: Any
) -> LatencyRule:
    limits = {READ: 50.0, WRITE: 100.0} if track is None else track
    return LatencyRule(**{"name": "slow", "acceptable_count": count, "track": limits, **settings})


def error_rule(count: int = 1, track: Iterable[int] = (EACCES, EIO), **settings: Any) -> ErrorRule:
    return ErrorRule(
        **{"name": "failing", "acceptable_count": count, "track": frozenset(track), **settings}
    )


def stall_rule(stall_sec: float = 5.0, **settings: Any) -> StallRule:
    watched = frozenset(range(20)) - {CHANGE_NOTIFY, LOCK, 13}
    return StallRule(**{"name": "hanging", "commands": watched, "stall_sec": stall_sec, **settings})


def handler_of(rule: AnomalyConfig, window_ns: int = 1_000_000_000) -> AnomalyHandler[Any]:
    handler = rule.detector(window_ns)
    assert isinstance(handler, AnomalyHandler)
    return handler
