"""``aod-shipper requeue``."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict

from agent.storage.spool import QUARANTINED
from shipper.commands.command import EXIT_LEFT_BEHIND, EXIT_OK, EXIT_USAGE, Command
from shipper.commands.retry import tell_woken
from shipper.configuration.schema import ShipperConfig
from shipper.inspection.bundle_finder import (
    FoundBundle,
    NoReferenceError,
    find_bundles,
    parse_reference,
)
from shipper.inspection.requeue import Requeued, requeue
from shipper.service.waking import no_permission, wake_service
from shipper.spools.sources import find_sources


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which bundles, and what is taken back."""
    parser.add_argument(
        "bundles", metavar="BUNDLE", nargs="*", help="an id, its beginning, or a file's name"
    )
    parser.add_argument("--all-quarantined", action="store_true", help="every bundle in quarantine")
    parser.add_argument(
        "--delivered",
        action="store_true",
        help="also a delivered bundle whose archive is still here: ship it once more",
    )


def run(config: ShipperConfig, options: argparse.Namespace) -> int:
    """Put bundles back into the queue."""
    try:
        chosen = _choose(config, options)
    except NoReferenceError as error:
        print(f"aod-shipper: {error}", file=sys.stderr)
        return EXIT_USAGE
    except OSError as error:
        raise no_permission("the spool cannot be read", error) from error
    results = [requeue(bundle, options.delivered) for bundle in chosen]
    holder = wake_service(config) if any(not one.refused for one in results) else None
    if options.json:
        document = {"bundles": [asdict(one) for one in results]}
        print(json.dumps({**document, "running": asdict(holder) if holder else None}, indent=2))
    else:
        _tell(results)
        if any(not one.refused for one in results):
            tell_woken(holder)
    return EXIT_LEFT_BEHIND if any(one.refused for one in results) else EXIT_OK


def _choose(config: ShipperConfig, options: argparse.Namespace) -> list[FoundBundle]:
    if not options.bundles and not options.all_quarantined:
        raise NoReferenceError("name bundles, or say --all-quarantined")
    sources = find_sources(config)
    chosen = {}
    for text in options.bundles:
        found = find_bundles(sources, parse_reference(text))
        if len({one.id for one in found}) != 1:
            raise NoReferenceError(f"{text!a} is the beginning of {len(found)} ids here, not of 1")
        chosen.update({(one.id, one.source): one for one in found})
    if options.all_quarantined:
        marked = [one for one in find_bundles(sources, "") if QUARANTINED in one.parts]
        chosen.update({(one.id, one.source): one for one in marked})
    return list(chosen.values())


def _tell(results: list[Requeued]) -> None:
    for one in results:
        print(f"{one.id} {one.text}", file=sys.stderr if one.refused else sys.stdout)
    if not results:
        print("nothing is in quarantine")


COMMAND = Command(
    name="requeue",
    purpose="try a quarantined bundle again, or deliver one once more",
    run=run,
    details="A bundle that is not what its manifest says is kept in quarantine and not tried "
    "again. This takes the mark back and wakes the service; a bundle that is still bad is marked "
    "anew. With --delivered the receipt of a bundle that is still here is taken back, so that it "
    "is shipped again, with the same bytes to the same keys: for objects that somebody removed "
    "from the store.",
    examples=(
        ("aod-shipper requeue 01KE8QZ7", "one bundle, by the beginning of its id"),
        ("aod-shipper requeue --all-quarantined", "after a disk was mended"),
        ("aod-shipper requeue --delivered 01KE8Q...", "what `aod-shipper verify` misses"),
    ),
    add_arguments=add_arguments,
)
