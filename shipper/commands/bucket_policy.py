"""``aod-shipper bucket-policy``."""

from __future__ import annotations

import argparse
import json
import sys

from shipper.commands.command import EXIT_OK, EXIT_USAGE, Command
from shipper.configuration.schema import RelayDestination, S3Destination, ShipperConfig
from shipper.s3.bucket_setup import PARTS, BucketSetup


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """``--host`` and ``--part``."""
    parser.add_argument(
        "--host",
        metavar="NAME",
        help="for a key that one host has for itself: its own folder alone",
    )
    parser.add_argument("--part", choices=PARTS, help="print the JSON of this part alone")


def run(config: ShipperConfig, options: argparse.Namespace) -> int:
    """Print what the bucket has to be set up with."""
    destination = config.destination
    if isinstance(destination, RelayDestination) and destination.fallback is not None:
        destination = destination.fallback
    if not isinstance(destination, S3Destination):
        print("aod-shipper: the destination in the configuration is no bucket", file=sys.stderr)
        return EXIT_USAGE
    setup = BucketSetup(destination, config.prefix, options.host)
    if options.part:
        print(json.dumps(setup.documents()[options.part], indent=2))
    elif options.json:
        print(json.dumps(setup.documents(), indent=2))
    else:
        print(setup.as_text())
    return EXIT_OK


COMMAND = Command(
    name="bucket-policy",
    purpose="print what the bucket has to be set up with",
    run=run,
    details="Prints the policies for a shipper that may only write and for an engineer who may "
    "only read, the lifecycle and the versioning of the bucket in the configuration, each with the "
    "command that applies it. It asks no store and changes nothing.",
    examples=(
        ("aod-shipper bucket-policy", "all of it, with the commands to apply it"),
        ("aod-shipper bucket-policy --part lifecycle", "one document, to be piped on"),
        ("aod-shipper bucket-policy --host web-17", "for a key that web-17 has for itself"),
    ),
    add_arguments=add_arguments,
)
