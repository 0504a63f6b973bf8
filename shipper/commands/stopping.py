"""What ``once`` and ``run`` have in common."""

from __future__ import annotations

import signal

from agent.service.stop_signal import StopSignal


def stop_on_signals() -> StopSignal:
    """Set by SIGTERM and SIGINT."""
    stop = StopSignal()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop
