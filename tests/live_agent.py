"""A running controller over a real kernel program that listens to this process's prctl calls."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from agent.configuration.schema import Config
from agent.controller import Controller
from agent.events.event_source import EventSource, KernelSource
from agent.kernel.kernel_filter import kernel_settings
from agent.kernel.probe import Probe
from agent.service.status_server import query_status
from agent.service.stop_signal import StopSignal
from tests.ebpf_host import Kernel, wait_until

CONFIG = Path(__file__).parents[1] / "config" / "config.yaml"
SECOND = 1_000_000_000


class LiveAgent:
    """Its only source is that of ``probe``; end it with ``controller.shutdown()``."""

    def __init__(
        self,
        config: Config,
        runtime: Path,
        probe: Probe,
        make_source: Callable[[Probe], KernelSource] = KernelSource,
    ) -> None:
        probe.settings[:] = kernel_settings(config.guardian.anomalies.values())
        self.source = make_source(probe)
        self.kernel = Kernel(probe)
        self._runtime = runtime
        self.controller = Controller(config, self._open, dict, runtime)
        self.controller.start()
        wait_until(lambda: self.status()["events"]["sources_opened"] == 1, "the source is open")

    def status(self) -> dict[str, Any]:
        return query_status(self._runtime)

    def slow(self, command: int, seconds: float, errno: int = 0, session: int = 7) -> None:
        """One command that took that long."""
        slow_command(self.kernel, command, seconds, errno, session)

    def _open(self, stop: StopSignal) -> EventSource:
        return self.source


def slow_command(
    kernel: Kernel, command: int, seconds: float, errno: int = 0, session: int = 7
) -> None:
    """One command that took that long."""
    mid = kernel.next_mid()
    kernel.enter(command, mid, session)
    kernel.age(int(seconds * SECOND))
    kernel.finish(command, mid, session, errno=errno)
