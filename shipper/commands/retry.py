"""``aod-shipper retry``."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict

from shipper.commands.command import EXIT_LEFT_BEHIND, EXIT_OK, Command
from shipper.configuration.schema import ShipperConfig
from shipper.service.waking import wake_service
from shipper.spools.lock_holder import Holder

NOBODY = "no shipper runs: systemctl start aod-shipper, or aod-shipper once"


def run(config: ShipperConfig, options: argparse.Namespace) -> int:
    """End the running service's pause."""
    holder = wake_service(config)
    if options.json:
        print(json.dumps({"running": None if holder is None else asdict(holder)}))
    else:
        tell_woken(holder)
    return EXIT_LEFT_BEHIND if holder is None else EXIT_OK


def tell_woken(holder: Holder | None) -> None:
    """Who tries again now, if anybody."""
    if holder is None:
        print(f"aod-shipper: {NOBODY}", file=sys.stderr)
    else:
        print(f"{holder} tries again now; aod-shipper status shows what comes of it")


COMMAND = Command(
    name="retry",
    purpose="end the running service's pause: try again now",
    run=run,
    details="While something is in the way of all bundles, the service pauses longer and longer "
    "(retry.max_pause_sec at most). Once the cause is mended, this has it try at once. Exit "
    "status 1 when no shipper runs.",
    examples=(
        ("aod-shipper retry", "as root or as aod-shipper"),
        ("aod-shipper retry && watch aod-shipper status", "and look on"),
    ),
)
