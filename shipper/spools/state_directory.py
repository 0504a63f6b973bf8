"""Where the service keeps its state, and is woken."""

from __future__ import annotations

from pathlib import Path

from shipper.configuration.schema import ShipperConfig

# Hidden, so that it is no part of the spool; there, because the shipper may write nowhere else.
STATE_FILE = ".shipper-state.json"
# Its coming by rename is the message that ends a pause, not the file.
RETRY_FILE = ".shipper-retry"


def state_directory(config: ShipperConfig) -> Path:
    """Where the service keeps its state and is woken: beside the inboxes of a central host, else
    in the spool's ``batches``."""
    return config.inbox or config.spool / "batches"
