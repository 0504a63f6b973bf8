"""``aod-shipper run``."""

from __future__ import annotations

import argparse
import logging

from shipper.commands.command import EXIT_OK, Command
from shipper.commands.stopping import stop_on_signals
from shipper.configuration.schema import ShipperConfig

_log = logging.getLogger("aod-shipper")


def run(config: ShipperConfig, options: argparse.Namespace) -> int:
    """Ship what comes, until told to stop."""
    from shipper.destinations.destination import open_destination
    from shipper.service.reporter import Reporter
    from shipper.service.service import Service
    from shipper.service.signs_of_life import SignsOfLife
    from shipper.shipping.shipper import Shipper
    from shipper.spools.spool_watch import SpoolWatch
    from shipper.spools.state_directory import state_directory
    from shipper.status.shipper_state import StateFile

    stop = stop_on_signals()
    reporter = Reporter(StateFile(state_directory(config)))
    destination = open_destination(config, stop)
    shipper = Shipper(config, destination, stop, reporter.deliver)
    signs = SignsOfLife(config, destination)
    _log.info("ships %s as configured in %s", config.spool, options.config)
    Service(shipper, config, stop, reporter, signs, SpoolWatch(stop.fd)).run()
    return EXIT_OK


COMMAND = Command(
    name="run",
    purpose="ship what comes, until told to stop",
    run=run,
    details="The service. Ships what is there and what comes, and while something is in the way "
    "tries again, for ever. SIGTERM and SIGINT end it; nothing is lost by killing it.",
    examples=(
        ("systemctl enable --now aod-shipper", "as a service (aod-shipper.service)"),
        ("aod-shipper run", "in the foreground, to look on"),
    ),
    speaks_json=False,
)
