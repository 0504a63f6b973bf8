"""What a fault did to the commands of an episode, read from its trace."""

from __future__ import annotations

import errno
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tests.lab.episode_store import FAULT, Episode, Phase

#: On a guest that has its processor no command takes a second, and one in a hundred not even this.
NEVER_NORMAL_NS, RARELY_NORMAL_NS = 1_000_000_000, 200_000_000
#: A load that stops for so long has been stopped by the fault, even if no command tells.
SILENCE_NS = 2_000_000_000

SLOW, ERROR, UNANSWERED, SILENT = "slow", "error", "unanswered", "silent"


class WrongLabelsError(Exception):
    """The trace belies the labels: as a measurement the episode is worth nothing."""


class NoImpactError(WrongLabelsError):
    """The fault touched no command."""


class BusyMachineError(WrongLabelsError):
    """Commands were slow without a fault, so that the label "normal" would be wrong."""


@dataclass(frozen=True)
class Interval:
    """From the switch that puts the fault there until clients have found their way back."""

    begin_ns: int
    end_ns: int


@dataclass(frozen=True)
class FirstAffected:
    """Where detection could have begun. ``kind``: `SLOW` and `ERROR` at the end of the command,
    `UNANSWERED` at its start, `SILENT` (no command tells) at the begin of the fault."""

    kind: str
    time_ns: int


def fault_interval(phases: list[Phase]) -> Interval | None:
    """The phases labelled fault; None if there are none."""
    faults = [phase for phase in phases if phase.label == FAULT]
    if not faults:
        return None
    return Interval(faults[0].begin_mono_ns, faults[-1].end_mono_ns)


def affected_commands(
    events: NDArray[np.void], fault: Interval, slow_ms: float, errors: list[str]
) -> NDArray[np.void]:
    """Commands that overlap ``fault`` and are slow or failed as its class says, by start."""
    ends, starts = _times(events)
    codes = [getattr(errno, name) for name in errors]
    touched = (events["metric_latency_ns"] >= slow_ms * 1e6) | np.isin(-events["retval"], codes)
    overlapping = (starts <= fault.end_ns) & (ends >= fault.begin_ns)
    chosen = np.flatnonzero(touched & overlapping)
    result: NDArray[np.void] = events[chosen[np.argsort(starts[chosen], kind="stable")]]
    return result


def first_affected(
    affected: NDArray[np.void], fault: Interval, trigger_ns: int, slow_ms: float
) -> FirstAffected:
    """The first of ``affected`` (by start) that had begun when the trigger came."""
    ends, starts = _times(affected)
    begun = np.flatnonzero(starts <= trigger_ns)
    if not len(begun):
        return FirstAffected(SILENT, fault.begin_ns)
    first = int(begun[0])
    if ends[first] > trigger_ns:
        return FirstAffected(UNANSWERED, int(starts[first]))
    slow = affected["metric_latency_ns"][first] >= slow_ms * 1e6
    return FirstAffected(SLOW if slow else ERROR, int(ends[first]))


def check_impact(episode: Episode) -> str:
    """One line about what the trace shows. Raises `WrongLabelsError`."""
    events, fault = episode.trace().events, fault_interval(episode.phases())
    size = (episode.directory / "smb.trace").stat().st_size
    summary = f"{len(events)} commands, {size / 1024:.0f} KiB"
    if fault is None:
        return f"{summary}, {_normal(events)}"
    ends, starts = _times(events)
    normal = events[(ends < fault.begin_ns) | (starts > fault.end_ns)]
    touched = affected_commands(events, fault, **episode.meta["affected"])
    silence_ns = _longest_silence(ends, fault)
    if not len(touched) and silence_ns < SILENCE_NS:
        raise NoImpactError(f"{episode.name}: the fault touched no command ({summary})")
    return (
        f"{summary}, {len(touched)} affected up to {_worst_ms(touched):.0f} ms, "
        f"silence {silence_ns / 1e9:.1f} s, {_normal(normal)}"
    )


def _normal(events: NDArray[np.void]) -> str:
    """How slow the normal commands were."""
    worst_ms, slow_ms = _worst_ms(events), _latency_ms(events, 99)
    if worst_ms * 1e6 >= NEVER_NORMAL_NS or slow_ms * 1e6 >= RARELY_NORMAL_NS:
        raise BusyMachineError(
            f"without a fault 1 % of the commands took {slow_ms:.0f} to {worst_ms:.0f} ms"
        )
    return f"normal up to {worst_ms:.0f} ms"


def _worst_ms(events: NDArray[np.void]) -> float:
    return _latency_ms(events, 100)


def _latency_ms(events: NDArray[np.void], percent: float) -> float:
    return float(np.percentile(events["metric_latency_ns"], percent)) / 1e6 if len(events) else 0.0


def _longest_silence(ends: NDArray[np.int64], fault: Interval) -> int:
    inside = ends[(ends >= fault.begin_ns) & (ends <= fault.end_ns)]
    return int(np.diff(np.sort([fault.begin_ns, *inside, fault.end_ns])).max())


def _times(events: NDArray[np.void]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(ends, starts) in nanoseconds."""
    ends = events["cmd_end_time_ns"].astype(np.int64)
    return ends, ends - events["metric_latency_ns"].astype(np.int64)
