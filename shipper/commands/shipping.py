"""What ``once`` and ``run`` have in common."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import TYPE_CHECKING

from agent.service.stop_signal import StopSignal
from shipper.config_schema import ShipperConfig
from shipper.outcome import Outcome

if TYPE_CHECKING:
    from shipper.shipper import Shipper


def stop_on_signals() -> StopSignal:
    """Set by SIGTERM and SIGINT."""
    stop = StopSignal()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop


def make_shipper(
    config: ShipperConfig, stop: StopSignal, on_outcome: Callable[[Outcome], None]
) -> Shipper:
    """The shipper that the configuration describes."""
    from shipper.destination import open_destination
    from shipper.shipper import Shipper

    return Shipper(config, open_destination(config, stop), stop, on_outcome)
