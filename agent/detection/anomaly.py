"""What passes from detection to collection: a trigger and the evidence frozen at that moment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from agent.configuration.schema import AnomalyConfig
from agent.detection.incidents import BundleOrder


@dataclass(frozen=True)
class Place:
    """Where it happened: server name, share as ``\\\\server\\share``, and its mount points; each
    empty where it is not known."""

    server: str = ""
    share: str = ""
    mount_points: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.share or self.server


@dataclass(frozen=True)
class Trigger:
    """What a detector saw: one sentence for people, and where in the event stream it was.

    ``time_ns`` is the CLOCK_MONOTONIC moment that tipped the scale; ``violations`` counts the
    commands that were over their limit, failed or hang, ``worst_ns`` is the slowest one's latency
    or age. ``command`` is None for what concerns no single command.
    """

    time_ns: int
    reason: str
    violations: int = 0
    worst_ns: int = 0
    command: int | None = None
    session_id: int = 0
    place: Place = field(default_factory=Place)


@dataclass(frozen=True)
class Evidence:
    """Copies of the kernel's and the recorder's memory, taken at the trigger.

    ``events``: `bpf.abi.EVENT` records, oldest first, the last ones being the trigger's.
    ``histograms``: uint64 (COMMANDS, BUCKETS), all commands since attach.
    ``inflight``: `bpf.abi.INFLIGHT` records of commands not answered at the trigger.
    ``wall_offset_ns``: added to an event's time it gives nanoseconds of the wall clock.
    ``source``: where the events come from (kernel, headers, trace file), for the manifest.
    ``histograms_before``: as ``histograms``, at the moment ``before_ns``, before the trigger's
    window; None when nothing was kept from then.
    """

    events: NDArray[np.void]
    histograms: NDArray[np.uint64]
    inflight: NDArray[np.void]
    counters: dict[str, int]
    wall_offset_ns: int = 0
    source: dict[str, object] = field(default_factory=dict)
    before_ns: int = 0
    histograms_before: NDArray[np.uint64] | None = None


@dataclass(frozen=True)
class Aftermath:
    """What came after the trigger, until the collection was done: `bpf.abi.EVENT` records, and
    the histograms as of then."""

    events: NDArray[np.void]
    histograms: NDArray[np.uint64]


@dataclass(frozen=True)
class AnomalyAction:
    """An order to collect one bundle. ``id`` is its ULID, ``wall_ns`` the time of the trigger.

    ``aftermath`` may be called from any thread, and tells what came since. ``live``: the trigger's
    time is of this host's clock, not of a trace's. An order of a person may concern the process
    ``target_pid``, last for ``length_sec`` and carry a ``label``.
    """

    id: str
    wall_ns: int
    anomaly: AnomalyConfig
    trigger: Trigger
    evidence: Evidence
    incident: BundleOrder
    aftermath: Callable[[], Aftermath]
    live: bool
    target_pid: int | None = None
    length_sec: float | None = None
    label: str = ""
