"""How well bundles tell faults from normal work. Pure: episodes and manifests in, numbers out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.lab.impact import (
    UNANSWERED,
    FirstAffected,
    Interval,
    affected_commands,
    first_affected,
)

#: A trigger so soon after the fault still speaks of it.
GRACE_NS = 5_000_000_000

Manifest = dict[str, Any]


@dataclass(frozen=True)
class EpisodeScore:
    """One episode. ``fault`` is None for an innocent one; times are in seconds.

    ``incidents`` and ``true_incidents`` count incidents of which there are bundles. ``delay_sec``
    is from the first affected command to the trigger, ``since_fault_sec`` from the begin of the
    fault; both are None unless the episode is recalled.
    """

    name: str
    seed: int
    held_out: bool
    innocent: bool
    bundles: int
    false_bundles: int
    incidents: int
    true_incidents: int
    types: tuple[str, ...]
    recalled: bool = False
    first_affected: str = ""
    delay_sec: float | None = None
    since_fault_sec: float | None = None

    @property
    def right(self) -> bool:
        """A fault found, and nothing else."""
        return not self.false_bundles and self.recalled is not self.innocent


@dataclass(frozen=True)
class GroupScore:
    """Several episodes together. A ratio without a denominator is None."""

    name: str
    episodes: int
    faults: int
    recalled: int
    bundles: int
    false_bundles: int
    incidents: int
    true_incidents: int
    types: tuple[str, ...]
    delays_sec: tuple[float, ...]
    since_fault_sec: tuple[float, ...]
    hang_delays_sec: tuple[float, ...]

    @property
    def recall(self) -> float | None:
        """Recalled fault episodes of all fault episodes."""
        return self.recalled / self.faults if self.faults else None

    @property
    def precision(self) -> float | None:
        """True incidents of all incidents."""
        return self.true_incidents / self.incidents if self.incidents else None

    @property
    def bundles_per_incident(self) -> float | None:
        """How often one incident was collected."""
        return self.bundles / self.incidents if self.incidents else None


def score_episode(
    meta: dict[str, Any],
    fault: Interval | None,
    events: NDArray[np.void],
    manifests: Sequence[Manifest],
) -> EpisodeScore:
    """Judge the bundles of one episode.

    A bundle is true when its trigger lies within ``fault`` or `GRACE_NS` after it, or when it
    follows a true one of the same incident. Everything else is false.
    """
    ordered = sorted(manifests, key=_trigger_ns)
    incidents: dict[str, bool] = {}
    false_bundles = 0
    for manifest in ordered:
        truth = incidents.setdefault(_incident(manifest), False) or _within(manifest, fault)
        incidents[_incident(manifest)] = truth
        false_bundles += not truth
    hits = [_trigger_ns(manifest) for manifest in ordered if _within(manifest, fault)]
    first = _first_affected(meta, fault, events, hits[0]) if fault and hits else None
    return EpisodeScore(
        name=meta["class"],
        seed=meta["seed"],
        held_out=meta["held_out"],
        innocent=fault is None,
        bundles=len(ordered),
        false_bundles=false_bundles,
        incidents=len(incidents),
        true_incidents=sum(incidents.values()),
        types=tuple(dict.fromkeys(str(manifest["type"]) for manifest in ordered)),
        recalled=bool(hits),
        first_affected=first.kind if first else "",
        delay_sec=(hits[0] - first.time_ns) / 1e9 if first else None,
        since_fault_sec=(hits[0] - fault.begin_ns) / 1e9 if fault and hits else None,
    )


def score_group(name: str, scores: Sequence[EpisodeScore]) -> GroupScore:
    """Add up ``scores``."""
    return GroupScore(
        name=name,
        episodes=len(scores),
        faults=sum(not score.innocent for score in scores),
        recalled=sum(score.recalled for score in scores),
        bundles=sum(score.bundles for score in scores),
        false_bundles=sum(score.false_bundles for score in scores),
        incidents=sum(score.incidents for score in scores),
        true_incidents=sum(score.true_incidents for score in scores),
        types=tuple(sorted({kind for score in scores for kind in score.types})),
        delays_sec=_present(score.delay_sec for score in scores),
        since_fault_sec=_present(score.since_fault_sec for score in scores),
        hang_delays_sec=_present(
            score.delay_sec for score in scores if score.first_affected == UNANSWERED
        ),
    )


def by_class(scores: Sequence[EpisodeScore]) -> list[GroupScore]:
    """One group for each class, in the order in which the classes first appear."""
    names = dict.fromkeys(score.name for score in scores)
    return [score_group(name, [s for s in scores if s.name == name]) for name in names]


def percentile(values: Sequence[float], percent: float) -> float | None:
    """None if there is no value."""
    return float(np.percentile(values, percent)) if len(values) else None


def _first_affected(
    meta: dict[str, Any], fault: Interval, events: NDArray[np.void], trigger_ns: int
) -> FirstAffected:
    affected = affected_commands(events, fault, **meta["affected"])
    return first_affected(affected, fault, trigger_ns, meta["affected"]["slow_ms"])


def _present(values: Iterable[float | None]) -> tuple[float, ...]:
    return tuple(value for value in values if value is not None)


def _trigger_ns(manifest: Manifest) -> int:
    return int(manifest["trigger"]["time_ns"])


def _within(manifest: Manifest, fault: Interval | None) -> bool:
    return fault is not None and fault.begin_ns <= _trigger_ns(manifest) <= fault.end_ns + GRACE_NS


def _incident(manifest: Manifest) -> str:
    """Agents that do not number their incidents make one bundle of each."""
    incident = manifest.get("incident") or {}
    return str(incident.get("id", manifest["id"]))
