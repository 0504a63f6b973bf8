"""Opens the live source: waits for the cifs module, loads the program, sets its thresholds."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.events.event_source import EventSource, KernelSource
from agent.kernel.module_events import loaded_cifs, wait_for_cifs, wait_for_new_cifs
from agent.kernel.probe import LoadStopped, Probe, ProbeFault, load_probe
from agent.kernel.rights import missing_rights
from agent.service.stop_signal import StopSignal


def open_kernel_source(probe: Probe) -> KernelSource:
    """A source that owns ``probe``; on a fault the probe is closed, so that no retry adds one."""
    try:
        return KernelSource(probe)
    except BaseException:
        probe.close()
        raise


class ProbeOpener:
    """Call it for a source, which begins with ``settings``; ``state`` says how far it came.

    `let_go` and `attach` may be called from any thread.
    """

    def __init__(self, settings: NDArray[np.void]) -> None:
        self._settings = settings
        self._again: StopSignal | None = None
        self._lock = threading.Lock()
        self._let_go: int | None = None
        self.state: dict[str, Any] = {"state": "starting"}

    def let_go(self) -> bool:
        """Before the next source, wait until the module was loaded anew, or for `attach`; False
        when it waits for the module anyway."""
        with self._lock:
            if self._again or self.state["state"] == "waiting_for_cifs":
                return False
            self._let_go = loaded_cifs()
            self._again = StopSignal()
            return True

    def attach(self) -> bool:
        """Open the next source without such a wait; False: there is none."""
        with self._lock:
            if self._again:
                self._again.set()
            return self._again is not None

    def __call__(self, stop: StopSignal) -> EventSource | None:
        """A `KernelSource`, or None when ``stop`` was set. Raises `ProbeFault`."""
        try:
            probe = self._load(stop)
        except LoadStopped:
            return None
        except ProbeFault as fault:
            self.state = {
                "state": "fault",
                "kind": fault.kind,
                "message": fault.message,
                "remedy": fault.remedy,
            }
            raise
        if probe is None:
            return None
        source = open_kernel_source(probe)
        source.apply(self._settings)
        self.state = {"state": "watching", **probe.description}
        return source

    def _load(self, stop: StopSignal) -> Probe | None:
        fault = missing_rights()
        if fault:
            raise fault
        self._wait_detached(stop)
        self.state = {"state": "waiting_for_cifs"}
        if not wait_for_cifs(stop.fd):
            return None
        self.state = {"state": "loading"}
        return load_probe(stop_fd=stop.fd)

    def _wait_detached(self, stop: StopSignal) -> None:
        again = self._again
        if again is None:
            return
        self.state = {"state": "detached"}
        wait_for_new_cifs([stop.fd, again.fd], self._let_go)
        with self._lock:
            self._again = None
            again.close()
