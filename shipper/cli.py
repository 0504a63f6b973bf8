"""The command ``aod-shipper``."""

from __future__ import annotations

import argparse
import json
import logging
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from agent import __version__
from agent.service.stop_signal import StopSignal
from agent.storage.spool import Spool
from shipper.config_loader import ConfigError, load_config
from shipper.config_schema import ShipperConfig
from shipper.faults import HostFault

if TYPE_CHECKING:
    from shipper.outcome import Outcome, Summary
    from shipper.shipper import Shipper

EXIT_OK = 0
EXIT_LEFT_BEHIND = 1
EXIT_USAGE = 2

DEFAULT_CONFIG = Path("/etc/aod/shipper.yaml")

DESCRIPTION = """\
Carries the bundles that aod-agent finished from this host's spool to a store: an S3 bucket
or a directory. A bundle counts as delivered when its receipt <id>.shipped lies in the spool;
stopping, killing or repeating the shipper loses and doubles nothing. A spool has one shipper
at a time: `once` is refused while the service runs. The credentials that systemd loads are
only in the service's unit: `once` outside of it needs credentials_file in the configuration."""

EXAMPLES = """\
examples:
  aod-shipper once               ship what is waiting, one line per bundle, then end
  aod-shipper run                ship what comes, until stopped (see aod-shipper.service)
  aod-shipper status             what waits, what arrived, what is in the way and its remedy
  aod-shipper status --json      the same for a monitoring system
  aod-shipper once --config F    with another configuration than /etc/aod/shipper.yaml

exit status: 0 fine, 1 something stayed behind (the fault is shown with its remedy),
2 wrong usage or configuration"""

_log = logging.getLogger("aod-shipper")


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    options = build_parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s", stream=sys.stderr)
    for library in ("boto3", "botocore", "s3transfer", "urllib3"):
        logging.getLogger(library).setLevel(logging.WARNING)
    command: Callable[[ShipperConfig, argparse.Namespace], int] = options.command
    try:
        loaded = load_config(options.config)
        for warning in loaded.warnings:
            print(f"warning: {warning}", file=sys.stderr)
        return command(loaded.config, options)
    except ConfigError as error:
        print(error, file=sys.stderr)
    except HostFault as fault:
        _print_fault(fault.message, fault.remedy)
        return EXIT_LEFT_BEHIND
    except ModuleNotFoundError as error:
        print(f"aod-shipper: {error}; install aod-fleet[shipper]", file=sys.stderr)
    return EXIT_USAGE


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = argparse.ArgumentParser(
        prog="aod-shipper",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"aod-shipper {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, command, purpose in (
        ("once", ship_once, "ship what is waiting, then end"),
        ("run", run_shipper, "ship what comes, until told to stop"),
        ("status", show_status, "what waits, what arrived, what is in the way"),
    ):
        subparser = commands.add_parser(name, help=purpose, description=purpose)
        subparser.set_defaults(command=command)
        subparser.add_argument(
            "--config",
            type=Path,
            default=DEFAULT_CONFIG,
            metavar="F",
            help="configuration file (default: %(default)s)",
        )
        if name != "run":
            subparser.add_argument("--json", action="store_true", help="print JSON for machines")
    return parser


def ship_once(config: ShipperConfig, options: argparse.Namespace) -> int:
    """``aod-shipper once``."""
    from shipper.spool_lock import ShippingLock

    def show(outcome: Outcome) -> None:
        if outcome.key and not outcome.fault and not options.json:
            print(f"shipped {outcome.title} ({outcome.size} bytes) {outcome.key}", flush=True)

    stop = _stop_on_signals()
    with ShippingLock(config):
        summary = _make_shipper(config, stop, show).ship_pending()
    if options.json:
        print(json.dumps(_summary_document(summary), indent=2))
    else:
        print(f"{len(summary.shipped)} shipped, {summary.left} left")
        if summary.tombstones or summary.tombstones_left:
            print(f"tombstones: {len(summary.tombstones)} shipped, {summary.tombstones_left} left")
    for note in summary.notes():
        _print_fault(note.text, note.remedy)
    if stop.is_set() and not summary.complete:
        print("aod-shipper: stopped", file=sys.stderr)
    return EXIT_OK if summary.complete else EXIT_LEFT_BEHIND


def run_shipper(config: ShipperConfig, options: argparse.Namespace) -> int:
    """``aod-shipper run``."""
    from shipper.reporter import Reporter
    from shipper.service import Service
    from shipper.shipper_state import StateFile
    from shipper.spool_watch import SpoolWatch

    stop = _stop_on_signals()
    reporter = Reporter(StateFile(Spool(config.spool).batches))
    shipper = _make_shipper(config, stop, reporter.deliver)
    _log.info("ships %s as configured in %s", config.spool, options.config)
    Service(shipper, config, stop, reporter, SpoolWatch(stop.fd)).run()
    return EXIT_OK


def show_status(config: ShipperConfig, options: argparse.Namespace) -> int:
    """``aod-shipper status``."""
    from shipper.destination import open_destination
    from shipper.status import read_status

    try:
        status = read_status(Spool(config.spool), open_destination(config).description)
    except OSError as error:
        print(f"aod-shipper: the spool cannot be read: {error}", file=sys.stderr)
        return EXIT_LEFT_BEHIND
    print(status.as_json() if options.json else status.as_text())
    return EXIT_LEFT_BEHIND if status.faults else EXIT_OK


def _stop_on_signals() -> StopSignal:
    stop = StopSignal()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop


def _make_shipper(
    config: ShipperConfig, stop: StopSignal, on_outcome: Callable[[Outcome], None]
) -> Shipper:
    from shipper.destination import open_destination
    from shipper.shipper import Shipper

    return Shipper(config, open_destination(config), stop, on_outcome)


def _print_fault(message: str, remedy: str) -> None:
    print(f"aod-shipper: {message}\n  remedy: {remedy}", file=sys.stderr)


def _summary_document(summary: Summary) -> dict[str, object]:
    return {
        "shipped": [_outcome_document(outcome) for outcome in summary.shipped],
        "left": summary.left,
        "tombstones": [_outcome_document(outcome) for outcome in summary.tombstones],
        "tombstones_left": summary.tombstones_left,
        "faults": [
            {
                "kind": note.kind,
                "bundle": note.bundle,
                "message": note.message,
                "remedy": note.remedy,
            }
            for note in summary.notes()
        ],
    }


def _outcome_document(outcome: Outcome) -> dict[str, object]:
    return {"id": outcome.bundle_id, "key": outcome.key, "size": outcome.size}


if __name__ == "__main__":
    sys.exit(main())
