"""The command ``aod-shipper``."""

from __future__ import annotations

import argparse
import logging
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

from agent import __version__
from shipper.commands import (
    bucket_policy,
    check,
    check_config,
    fleet,
    metrics,
    once,
    requeue,
    retry,
    run,
    status,
    verify,
    why,
)
from shipper.commands.command import EXIT_LEFT_BEHIND, EXIT_USAGE, Command, print_fault
from shipper.configuration.loader import ConfigError, load_config
from shipper.faults import Fault

DEFAULT_CONFIG = Path("/etc/aod/shipper.yaml")

COMMANDS: tuple[Command, ...] = (
    check.COMMAND,
    check_config.COMMAND,
    bucket_policy.COMMAND,
    once.COMMAND,
    run.COMMAND,
    status.COMMAND,
    why.COMMAND,
    retry.COMMAND,
    requeue.COMMAND,
    verify.COMMAND,
    fleet.COMMAND,
    metrics.COMMAND,
)

DESCRIPTION = """\
Carries the bundles that aod-agent finished from this host's spool to a store: an S3 bucket, a
directory, or the inbox of a central host, whose own aod-shipper carries them on. A bundle
counts as delivered when its receipt <id>.shipped lies in the spool; stopping, killing or
repeating the shipper loses and doubles nothing. A spool has one shipper at a time: `once` is
refused while the service runs. The credentials that systemd loads are only in the service's
unit: `once` outside of it needs credentials_file in the configuration."""

EPILOG = """\
first steps:
  aod-shipper check              is everything there that shipping needs?
  aod-shipper status             what waits, what arrived, what is in the way and its remedy
  aod-shipper status --json      the same for a monitoring system
  aod-shipper COMMAND --help     more on a command, with examples

exit status: 0 fine, 1 something stayed behind or is not as it should be (the fault is shown
with its remedy), 2 wrong usage or configuration"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    options = build_parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s", stream=sys.stderr)
    for library in ("boto3", "botocore", "s3transfer", "urllib3"):
        logging.getLogger(library).setLevel(logging.WARNING)
    command: Command = options.command
    try:
        loaded = load_config(options.config)
        for warning in loaded.warnings:
            print(f"warning: {warning}", file=sys.stderr)
        return command.run(loaded.config, options)
    except ConfigError as error:
        print(error, file=sys.stderr)
    except Fault as fault:
        print_fault(fault.message, fault.remedy)
        return EXIT_LEFT_BEHIND
    except ModuleNotFoundError as error:
        print(f"aod-shipper: {error}; install aod-fleet[shipper]", file=sys.stderr)
    return EXIT_USAGE


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = argparse.ArgumentParser(
        prog="aod-shipper",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"aod-shipper {__version__}")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in COMMANDS:
        subparser = subparsers.add_parser(
            command.name,
            help=command.purpose,
            description=textwrap.fill(command.details, 90),
            epilog=command.epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add_arguments(subparser)
        _add_common_options(subparser, command)
    return parser


def _add_common_options(parser: argparse.ArgumentParser, command: Command) -> None:
    parser.set_defaults(command=command)
    parser.add_argument(
        "--config",
        type=Path,
        default=DEFAULT_CONFIG,
        metavar="F",
        help="configuration file (default: %(default)s)",
    )
    if command.speaks_json:
        parser.add_argument("--json", action="store_true", help="print JSON for machines")


if __name__ == "__main__":
    sys.exit(main())
