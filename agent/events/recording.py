"""Records every SMB command of this host into a trace file."""

from __future__ import annotations

import platform
import threading
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from agent import __version__
from agent.events.event_source import KernelSource, Snapshot
from agent.events.flight_recorder import FlightRecorder
from agent.events.trace import Look, TraceWriter, create_trace
from agent.kernel.kernel_filter import record_everything
from agent.kernel.probe import Probe
from agent.service.stop_signal import StopSignal
from bpf import abi

BUFFER_EVENTS = 32_768
ROUND_SEC = 0.25
# A look costs more than a round: it copies the whole table of commands under way.
LOOK_NS = 400_000_000
# A command this old is worth asking the kernel what it lists as pending.
OLD_NS = 500_000_000


class Recording:
    """Moves what happens on this host into a trace; takes over ``probe``."""

    def __init__(self, probe: Probe, progress: Callable[[int], None]) -> None:
        self._source = KernelSource(probe)
        self._source.apply(record_everything())
        self._recorder = FlightRecorder(BUFFER_EVENTS)
        self._progress = progress
        self._position = 0
        self._looked_ns = 0
        self.lost = 0

    def run(self, out: Path, stop: StopSignal) -> int:
        """Write all commands into ``out`` until ``stop`` is set; how many."""
        waker = threading.Thread(target=self._wake_at_stop, args=(stop,), daemon=True)
        waker.start()
        try:
            with create_trace(out, trace_meta(self._source)) as writer:
                writer.write_look(self._look())
                while not stop.is_set():
                    self._round(writer)
                    stop.wait(ROUND_SEC)
                self._write_pending(writer)
                self._note_losses(writer, self._source.snapshot())
                writer.write_look(self._look())
                return writer.events
        finally:
            stop.set()
            waker.join()
            self._source.close()

    def _wake_at_stop(self, stop: StopSignal) -> None:
        stop.wait(None)
        self._source.wake()

    def _round(self, writer: TraceWriter) -> None:
        """Sleeps while no command is under way; one that grows old is looked at."""
        self._write_pending(writer)
        self._progress(writer.events)
        now_ns = time.monotonic_ns()
        if now_ns - self._looked_ns < LOOK_NS:
            return
        self._looked_ns = now_ns
        snapshot = self._source.snapshot()
        self._note_losses(writer, snapshot)
        started = snapshot.inflight["start_ns"].astype(np.int64)
        if (started <= now_ns - OLD_NS).any():
            writer.write_look(Look(now_ns, snapshot.inflight, self._source.cifs_texts(now_ns)))
        elif not len(started):
            self._source.arm_bell(now_ns)
            if not len(self._source.snapshot().inflight):
                self._source.wait()

    def _write_pending(self, writer: TraceWriter) -> None:
        """Move what is waiting from the ring to the file."""
        while self._source.drain(self._recorder):
            end = self._recorder.appended
            while self._position < end:
                events = self._recorder.view(self._position, end)
                self._position += len(events)
                writer.write(events[events["tool"] != abi.TOOL_BELL])
            self._recorder.release(end)

    def _note_losses(self, writer: TraceWriter, snapshot: Snapshot) -> None:
        lost = snapshot.counters["ring_full"] + snapshot.counters["bad_records"]
        if lost > self.lost:
            writer.write(self._recorder.view(0, 0), lost - self.lost)
            self.lost = lost

    def _look(self) -> Look:
        texts = self._source.cifs_texts(0)
        return Look(time.monotonic_ns(), self._source.snapshot().inflight, texts)


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
