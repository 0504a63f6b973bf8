"""Ends the running service's pause from another process."""

from __future__ import annotations

from agent.storage import durable_file
from shipper.configuration.schema import ShipperConfig
from shipper.faults import HostFault
from shipper.spools.lock_holder import Holder
from shipper.spools.state_directory import RETRY_FILE, state_directory
from shipper.status.status import find_running


def wake_service(config: ShipperConfig) -> Holder | None:
    """Have the service try again at once; who it is, or None when no shipper runs.

    A message that is lost does no harm: a pause ends by itself. Raises HostFault when this user
    may not write where the service looks.
    """
    directory = state_directory(config)
    try:
        holder = find_running(config)
        if holder is not None:
            message = directory / RETRY_FILE
            durable_file.publish_bytes(message, b"")
            message.unlink(missing_ok=True)
    except OSError as error:
        raise no_permission(f"the service cannot be woken through {directory}", error) from error
    return holder


def no_permission(what: str, error: OSError) -> HostFault:
    """``what`` failed for want of a right, as far as anybody can tell."""
    return HostFault(f"{what}: {error.strerror or error}", "run this as root or as aod-shipper")
