"""Whether the service runs: for who starts it and has to know soon."""

from __future__ import annotations

import time

from shipper.configuration.schema import ShipperConfig
from shipper.spools.state_directory import state_directory
from shipper.status.shipper_state import StateFile
from shipper.status.status import find_running

_LOOK_AGAIN_SEC = 0.2


class NotRunningError(Exception):
    """The service did not come in time; the message says what is there instead."""


def wait_until_running(config: ShipperConfig, timeout_sec: float) -> None:
    """Return once the service has the spool and has written its state, whatever the store says.

    Looks at least once; raises `NotRunningError` after ``timeout_sec``.
    """
    deadline = time.monotonic() + timeout_sec
    while True:
        reason = _obstacle(config)
        if not reason:
            return
        if time.monotonic() >= deadline:
            raise NotRunningError(f"no service runs after {timeout_sec:g} s: {reason}")
        time.sleep(_LOOK_AGAIN_SEC)


def _obstacle(config: ShipperConfig) -> str:
    """Empty when there is none."""
    try:
        holder = find_running(config)
    except OSError as error:
        return f"the spool cannot be read: {error}"
    if holder is None:
        return f"nobody ships {config.spool}; systemctl status aod-shipper tells more"
    if holder.process not in (None, StateFile(state_directory(config)).read().process):
        return f"{holder} has the spool, and has not written its state"
    return ""
