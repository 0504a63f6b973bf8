"""``aod-shipper once``."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys

from agent.storage.spool import SpooledBundle
from shipper.commands.command import EXIT_LEFT_BEHIND, EXIT_OK, Command, print_fault
from shipper.commands.stopping import stop_on_signals
from shipper.configuration.schema import ShipperConfig
from shipper.inspection.progress import Progress
from shipper.shipping.outcome import Outcome, Summary
from shipper.spools.sources import find_sources
from shipper.spools.spool_lock import ShippingLock
from shipper.status.status import queue_of


def run(config: ShipperConfig, options: argparse.Namespace) -> int:
    """Ship what is waiting, then end."""
    from shipper.destinations.destination import open_destination
    from shipper.shipping.shipper import Shipper

    progress = _expected(config)

    def show(outcome: Outcome) -> None:
        if not outcome.tombstone and outcome.fault is None:
            progress.advance(outcome.size)
        if outcome.key and not outcome.fault and not options.json:
            with progress.hidden():
                print(f"shipped {outcome.title} ({outcome.size} bytes) {outcome.key}", flush=True)

    stop = stop_on_signals()
    with ShippingLock(config), progress:
        destination = open_destination(config, stop)
        summary = Shipper(config, destination, stop, show).ship_pending()
    print(json.dumps(_document(summary), indent=2) if options.json else _text(summary))
    for note in summary.notes():
        print_fault(note.text, note.remedy)
    if stop.is_set() and not summary.complete:
        print("aod-shipper: stopped", file=sys.stderr)
    return EXIT_OK if summary.complete else EXIT_LEFT_BEHIND


def _expected(config: ShipperConfig) -> Progress:
    """Over all that is pending now; a spool that cannot be listed is told of by the shipping."""
    pending: list[SpooledBundle] = []
    with contextlib.suppress(OSError):
        for source in find_sources(config):
            pending += queue_of(source.spool)
    return Progress(len(pending), sum(bundle.size for bundle in pending), sys.stderr)


def _text(summary: Summary) -> str:
    text = f"{len(summary.shipped)} shipped, {summary.left} left"
    if summary.tombstones or summary.tombstones_left:
        text += f"\ntombstones: {len(summary.tombstones)} shipped, {summary.tombstones_left} left"
    return text


def _document(summary: Summary) -> dict[str, object]:
    return {
        "shipped": [_outcome(outcome) for outcome in summary.shipped],
        "left": summary.left,
        "tombstones": [_outcome(outcome) for outcome in summary.tombstones],
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


def _outcome(outcome: Outcome) -> dict[str, object]:
    return {"id": outcome.bundle_id, "key": outcome.key, "size": outcome.size}


COMMAND = Command(
    name="once",
    purpose="ship what is waiting, then end",
    run=run,
    details="Ships what is pending, one line for each bundle, and says what stayed behind and why. "
    "Refused while the service runs. Exit status 1 when something stayed behind.",
    examples=(
        ("aod-shipper once", "as root or as aod-shipper, with the service stopped"),
        ("aod-shipper once --json", "the same, with a list of keys for a script"),
        ("aod-shipper once --config F", "to another store, with a configuration of its own"),
    ),
)
