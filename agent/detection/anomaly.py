"""What passes from detection to collection: a trigger and the evidence frozen at that moment."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from agent.configuration.schema import AnomalyConfig


@dataclass(frozen=True)
class Trigger:
    """What a detector saw: one sentence for people, and where in the event stream it was.

    ``time_ns`` is the CLOCK_MONOTONIC end of the command that tipped the scale; ``violations``
    counts the commands over their limit (or failed) in the window, ``worst_ns`` the slowest.
    """

    time_ns: int
    reason: str
    violations: int
    worst_ns: int
    command: int


@dataclass(frozen=True)
class Evidence:
    """Copies of the kernel's and the recorder's memory, taken at the trigger.

    ``events``: `bpf.abi.EVENT` records, oldest first, the last ones being the trigger's.
    ``histograms``: uint64 (COMMANDS, BUCKETS), all commands since attach.
    ``inflight``: `bpf.abi.INFLIGHT` records of commands not answered at the trigger.
    ``wall_offset_ns``: added to an event's time it gives nanoseconds of the wall clock.
    ``source``: where the events come from (kernel, headers, trace file), for the manifest.
    """

    events: NDArray[np.void]
    histograms: NDArray[np.uint64]
    inflight: NDArray[np.void]
    counters: dict[str, int]
    wall_offset_ns: int = 0
    source: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class AnomalyAction:
    """An order to collect one bundle. ``id`` is its ULID, ``wall_ns`` the time of the trigger."""

    id: str
    wall_ns: int
    anomaly: AnomalyConfig
    trigger: Trigger
    evidence: Evidence
