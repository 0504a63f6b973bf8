"""Records every SMB command of this host into a trace file."""

from __future__ import annotations

import platform
import threading
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

from agent import __version__
from agent.events.event_source import KernelSource
from agent.events.flight_recorder import FlightRecorder
from agent.events.trace import TraceWriter, create_trace
from agent.kernel.kernel_filter import record_everything
from agent.kernel.probe import Probe
from agent.service.stop_signal import StopSignal

BUFFER_EVENTS = 32_768


def record_trace(
    probe: Probe, out: Path, stop: StopSignal, progress: Callable[[int], None]
) -> tuple[int, int]:
    """Write all commands into ``out`` until ``stop`` is set; returns (events, lost).

    Takes over ``probe`` and closes it. ``progress`` gets the count of events so far.
    """
    source = KernelSource(probe)
    source.apply(record_everything())
    recorder = FlightRecorder(BUFFER_EVENTS)
    lost = 0
    waker = threading.Thread(target=_wake_at_stop, args=(stop, source), daemon=True)
    waker.start()
    try:
        with create_trace(out, trace_meta(source)) as writer:
            while not stop.is_set():
                source.wait()
                lost = _write_pending(source, recorder, writer, lost)
                progress(writer.events)
                stop.wait(0.005)
            _write_pending(source, recorder, writer, lost)
            return writer.events, lost
    finally:
        stop.set()
        waker.join()
        source.close()


def _wake_at_stop(stop: StopSignal, source: KernelSource) -> None:
    stop.wait(None)
    source.wake()


def trace_meta(source: KernelSource) -> dict[str, object]:
    """What a reader of the trace needs to know about its making."""
    snapshot = source.snapshot()
    return {
        "recorded": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "wall_offset_ns": time.time_ns() - time.monotonic_ns(),
        "agent_version": __version__,
        "kernel": platform.release(),
        "compound": snapshot.source.get("compound"),
    }


def _write_pending(
    source: KernelSource, recorder: FlightRecorder, writer: TraceWriter, lost_before: int
) -> int:
    """Move what is waiting from the ring to the file; the count of lost events so far."""
    while source.drain(recorder):
        end = recorder.appended
        position = writer.events
        while position < end:
            events = recorder.view(position, end)
            position += len(events)
            writer.write(events)
        recorder.release(end)
    counters = source.snapshot().counters
    lost = counters["ring_full"] + counters["bad_records"]
    if lost > lost_before:
        writer.write(recorder.view(0, 0), lost - lost_before)
    return lost
