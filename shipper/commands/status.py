"""``aod-shipper status``."""

from __future__ import annotations

import argparse
import math
import sys
import time

from agent.service.stop_signal import StopSignal
from shipper.commands.command import EXIT_LEFT_BEHIND, EXIT_OK, Command
from shipper.configuration.schema import ShipperConfig
from shipper.service.presence import NotRunningError, wait_until_running
from shipper.status.status import read_status
from shipper.status.status_text import hosts_text, status_text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """``--hosts`` and ``--wait``."""
    parser.add_argument(
        "--hosts", action="store_true", help="on a central host: a line for each host's inbox"
    )
    parser.add_argument(
        "--wait",
        type=_seconds,
        metavar="SEC",
        help="wait up to SEC seconds until the service runs; exit status 0 then, whatever is in "
        "the way of its bundles",
    )


def run(config: ShipperConfig, options: argparse.Namespace) -> int:
    """What waits, what arrived, what is in the way."""
    from shipper.destinations.destination import open_destination

    if options.wait is not None:
        try:
            wait_until_running(config, options.wait)
        except NotRunningError as error:
            print(f"aod-shipper: {error}", file=sys.stderr)
            return EXIT_LEFT_BEHIND
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
    return EXIT_OK if status.is_fine or options.wait is not None else EXIT_LEFT_BEHIND


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds, such as 30")
    return value


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
        ("aod-shipper status --wait 60", "after a start: whether the service runs"),
    ),
    add_arguments=add_arguments,
)
