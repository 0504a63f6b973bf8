"""The agent as `aod-agent run` starts it, but with probes that this machine's kernel has.

``python -m tests.bench.idle_agent DIRECTORY`` prints its status once the probes are attached.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
from dataclasses import replace
from pathlib import Path

from agent.config_loader import load_config
from agent.controller import Controller
from agent.events.event_source import EventSource, KernelSource
from agent.kernel.kernel_filter import kernel_settings
from agent.kernel.probe import load_probe
from agent.service.stop_signal import StopSignal

CONFIG = Path(__file__).parents[2] / "config" / "config.yaml"
ATTACH_TIMEOUT_SEC = 120
LOADER = Path(__file__).parents[1] / "prctl_loader.py"


def main(directory: Path) -> None:
    """Watch until SIGTERM."""
    config = replace(load_config(CONFIG).config, aod_output_dir=directory / "spool")
    attached = threading.Event()

    def open_source(stop: StopSignal) -> EventSource:
        probe = load_probe(command=[sys.executable, str(LOADER), "--option", "1090519041"])
        probe.settings[:] = kernel_settings(config.guardian.anomalies.values())
        attached.set()
        return KernelSource(probe)

    controller = Controller(config, open_source, dict, directory / "run")
    signal.signal(signal.SIGTERM, lambda *_: controller.stop.set())
    controller.start()
    if not attached.wait(ATTACH_TIMEOUT_SEC):
        sys.exit(f"no probes: {controller.status()['components']['EventDispatcher']}")
    print(json.dumps(controller.status()), flush=True)
    controller.wait()
    controller.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
