"""Orders of a person: the same bundle as an incident's, without a trigger."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from agent.configuration.schema import AnomalyConfig
from agent.detection.anomaly import AnomalyAction, Evidence, Trigger
from agent.detection.evidence_keeper import EvidenceKeeper, SnapshotSource
from agent.detection.incidents import BundleOrder
from agent.events.flight_recorder import FlightRecorder
from agent.storage.ulid import new_ulid

MAX_DURATION_SEC = 3_600.0
MAX_LABEL = 200
PROC = Path("/proc")


@dataclass(frozen=True, kw_only=True)
class OnDemandCapture(AnomalyConfig):
    """Stands where an incident's bundle names its rule."""

    type: ClassVar[str] = "capture"
    name: str = "capture"


@dataclass(frozen=True)
class CaptureRequest:
    """What to capture: for ``duration_sec``, with a look at the process ``target_pid``."""

    duration_sec: float
    target_pid: int | None = None
    label: str = ""

    @classmethod
    def of(cls, arguments: Mapping[str, object], proc: Path = PROC) -> CaptureRequest:
        """Read and check what came over the socket; raises ValueError, for people."""
        duration, pid, label = (
            arguments.get(name) for name in ("duration_sec", "target_pid", "label")
        )
        if not isinstance(duration, (int, float)) or not 0 <= duration <= MAX_DURATION_SEC:
            raise ValueError(f"the duration must be from 0 to {MAX_DURATION_SEC:,.0f} seconds")
        if pid is not None and (not isinstance(pid, int) or not (proc / str(pid)).is_dir()):
            raise ValueError(f"there is no process {pid}")
        if not isinstance(label, str) or len(label) > MAX_LABEL or not f"{label} ".isprintable():
            raise ValueError(f"the label must be printable, {MAX_LABEL} characters at most")
        return cls(float(duration), pid, label)


class OnDemand:
    """Makes orders out of requests; from any thread."""

    def __init__(self, recorder: FlightRecorder, source: SnapshotSource) -> None:
        self._recorder = recorder
        self._source = source
        self._keeper = EvidenceKeeper(recorder, source)

    def order(self, request: CaptureRequest, actions: Sequence[str]) -> AnomalyAction:
        """An order for now; histograms tell the time before it from the time of the capture."""
        now_ns, position = time.monotonic_ns(), self._recorder.appended
        snapshot, bundle_id = self._source.snapshot(now_ns), new_ulid()
        of_whom = f", process {request.target_pid}" if request.target_pid is not None else ""
        reason = f"captured on demand for {request.duration_sec:g} s{of_whom}"
        return AnomalyAction(
            id=bundle_id,
            wall_ns=time.time_ns(),
            anomaly=OnDemandCapture(actions=tuple(actions)),
            trigger=Trigger(now_ns, f"{reason}: {request.label}" if request.label else reason),
            evidence=Evidence(
                events=self._recorder.history(position),
                histograms=snapshot.histograms,
                inflight=snapshot.inflight,
                counters=snapshot.counters,
                wall_offset_ns=time.time_ns() - time.monotonic_ns(),
                source=snapshot.source,
                before_ns=now_ns,
                histograms_before=snapshot.histograms,
            ),
            incident=BundleOrder(bundle_id, new_ulid(), 1, "", now_ns),
            aftermath=self._keeper.aftermath(position),
            live=True,
            target_pid=request.target_pid,
            length_sec=request.duration_sec,
            label=request.label,
        )
