"""``aod-shipper status``."""

from __future__ import annotations

import argparse
import sys
import time

from agent.service.stop_signal import StopSignal
from shipper.commands.command import EXIT_LEFT_BEHIND, EXIT_OK, Command
from shipper.configuration.schema import ShipperConfig
from shipper.status.status import read_status
from shipper.status.status_text import hosts_text, status_text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """``--hosts``."""
    parser.add_argument(
        "--hosts", action="store_true", help="on a central host: a line for each host's inbox"
    )


def run(config: ShipperConfig, options: argparse.Namespace) -> int:
    """What waits, what arrived, what is in the way."""
    from shipper.destinations.destination import open_destination

    try:
        status = read_status(
            config, open_destination(config, StopSignal()).description, time.time()
        )
    except OSError as error:
        print(f"aod-shipper: the spool cannot be read: {error}", file=sys.stderr)
        return EXIT_LEFT_BEHIND
    if options.json:
        print(status.as_json())
    else:
        print(hosts_text(status) if options.hosts else status_text(status))
    return EXIT_OK if status.is_fine else EXIT_LEFT_BEHIND


COMMAND = Command(
    name="status",
    purpose="what waits, what arrived, what is in the way and its remedy",
    run=run,
    details="Reads files only: it asks neither the service nor the store, and works for every "
    "member of the spool's group. Exit status 1 when something is in the way: a fault, a "
    "quarantined bundle, or pending bundles and no shipper that runs.",
    examples=(
        ("aod-shipper status", "the queue, the last delivery, each fault with its remedy"),
        ("aod-shipper status --hosts", "on a central host: a line for each host"),
        ("aod-shipper status --json", "all of it for a monitoring system"),
        ("watch aod-shipper status", "while a backlog goes"),
    ),
    add_arguments=add_arguments,
)
