"""``aod-shipper metrics``."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from agent.service.stop_signal import StopSignal
from shipper.commands.command import EXIT_LEFT_BEHIND, EXIT_OK, Command
from shipper.configuration.schema import ShipperConfig
from shipper.status.metrics import metrics_text
from shipper.status.status import read_status


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """``--output``."""
    parser.add_argument(
        "--output",
        type=Path,
        metavar="F",
        help="a file to replace as a whole, instead of printing",
    )


def run(config: ShipperConfig, options: argparse.Namespace) -> int:
    """The status for Prometheus."""
    from shipper.destinations.destination import open_destination
    from shipper.service.metrics_outlets import MetricsFile

    try:
        status = read_status(
            config, open_destination(config, StopSignal()).description, time.time()
        )
        text = metrics_text(status)
        if options.output is None:
            print(text, end="")
        else:
            MetricsFile(options.output).write(text)
    except OSError as error:
        print(f"aod-shipper: {error}", file=sys.stderr)
        return EXIT_LEFT_BEHIND
    return EXIT_OK


COMMAND = Command(
    name="metrics",
    purpose="the status as Prometheus metrics",
    run=run,
    details="Prints what the service writes into metrics.file and answers on metrics.port, in "
    "Prometheus' text format (docs/metrics.md). It reads files only, and works without a service: "
    "aod_shipper_up is 0 then. `aod-shipper status --json` tells more than figures.",
    examples=(
        ("aod-shipper metrics", "look at them"),
        ("aod-shipper metrics --output F.prom", "for a timer, where no service runs"),
    ),
    add_arguments=add_arguments,
    speaks_json=False,
)
