"""Opens the live source: waits for the cifs module, loads the program, sets its thresholds."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.events.event_source import EventSource, KernelSource
from agent.kernel.module_events import wait_for_cifs
from agent.kernel.probe import ProbeFault, load_probe
from agent.service.stop_signal import StopSignal


class ProbeOpener:
    """Call it for a source; ``state`` says how far it came, for the status."""

    def __init__(self, settings: NDArray[np.void]) -> None:
        self._settings = settings
        self.state: dict[str, Any] = {"state": "starting"}

    def __call__(self, stop: StopSignal) -> EventSource | None:
        """A `KernelSource`, or None when ``stop`` was set. Raises `ProbeFault`."""
        self.state = {"state": "waiting_for_cifs"}
        if not wait_for_cifs(stop.fd):
            return None
        self.state = {"state": "loading"}
        try:
            probe = load_probe()
        except ProbeFault as fault:
            self.state = {
                "state": "fault",
                "kind": fault.kind,
                "message": fault.message,
                "remedy": fault.remedy,
            }
            raise
        probe.settings[:] = self._settings
        self.state = {"state": "watching", **probe.description}
        return KernelSource(probe)
