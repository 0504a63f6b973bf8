"""``aod-shipper check-config``."""

from __future__ import annotations

import argparse

from shipper.commands.command import EXIT_OK, Command
from shipper.configuration.schema import ShipperConfig


def run(config: ShipperConfig, options: argparse.Namespace) -> int:
    """Nothing is left to do: a file with a mistake in it has been refused before."""
    print(f"{options.config}: fine")
    return EXIT_OK


COMMAND = Command(
    name="check-config",
    purpose="check the configuration file alone",
    run=run,
    details="Tells every mistake in the file, with line and cure, and asks neither the spool nor "
    "the store: those are for `aod-shipper check`. Exit status 2 when the service would not start "
    "with it.",
    examples=(
        ("aod-shipper check-config", "after an edit, before a restart"),
        ("aod-shipper check-config --config F", "before F replaces the one in use"),
    ),
    speaks_json=False,
)
