"""``aod-shipper why``."""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict
from datetime import datetime, timezone

from agent.storage.ulid import is_ulid, ulid_time_ms
from shipper.commands.command import EXIT_LEFT_BEHIND, EXIT_OK, EXIT_USAGE, Command
from shipper.configuration.schema import DirectoryDestination, S3Destination, ShipperConfig
from shipper.inspection.bundle_finder import NoReferenceError, find_bundles, parse_reference
from shipper.inspection.whereabouts import DELIVERED, Scene, Whereabouts, tell_whereabouts
from shipper.spools.sources import find_sources
from shipper.spools.state_directory import state_directory
from shipper.status.shipper_state import StateFile
from shipper.status.status import find_running


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The bundle."""
    parser.add_argument(
        "bundle",
        metavar="BUNDLE",
        help="a bundle's id, six or more characters of its beginning, or the name of one of its "
        "files or objects",
    )


def run(config: ShipperConfig, options: argparse.Namespace) -> int:
    """Where a bundle is, and why."""
    try:
        start = parse_reference(options.bundle)
        found = find_bundles(find_sources(config), start)
        scene = Scene(StateFile(state_directory(config)).read(), find_running(config), time.time())
        told = [tell_whereabouts(bundle, scene) for bundle in found]
    except NoReferenceError as error:
        print(f"aod-shipper: {options.bundle!a}: {error}", file=sys.stderr)
        return EXIT_USAGE
    except OSError as error:
        print(f"aod-shipper: the spool cannot be read: {error}", file=sys.stderr)
        return EXIT_LEFT_BEHIND
    if len({one.id for one in told}) > 1:
        return _tell_ambiguous(options.bundle, told)
    if options.json:
        search = [] if told else how_to_search(config, start)
        document = {"asked": start, "found": [asdict(one) for one in told], "search": search}
        print(json.dumps(document, indent=2))
    else:
        print("\n".join(_text(told) if told else how_to_search(config, start)))
    if not told:
        return EXIT_USAGE
    return EXIT_OK if all(one.state == DELIVERED for one in told) else EXIT_LEFT_BEHIND


def how_to_search(config: ShipperConfig, start: str) -> list[str]:
    """For a bundle that no spool here knows: where it would be."""
    lines = [
        f"{start} is not in {config.spool}"
        + ("" if config.inbox is None else f" nor in an inbox of {config.inbox}")
        + ": it was never finished here, or its end is more than two weeks ago: then its receipt "
        "or tombstone was folded into history.json",
        "in the store its objects are called "
        + "/".join([*filter(None, [config.prefix]), "<host>", _day(start), f"{start}…-<anomaly>-…"])
        + " (.tar.zst and .json, or .evicted.json when it was lost)",
    ]
    destination = config.destination
    if isinstance(destination, DirectoryDestination):
        lines.append(f"search with: find {destination.path} -name '{start}*'")
    elif isinstance(destination, S3Destination):
        folder = f"s3://{destination.bucket}/{config.prefix}"
        endpoint = destination.endpoint_url
        option = f" --endpoint-url {endpoint}" if endpoint and "@" not in endpoint else ""
        lines.append(f"search with: aws{option} s3 ls --recursive {folder} | grep {start}")
    else:
        lines.append(f"search on {destination.host} with: aod-shipper why {start}")
    return lines


def _day(start: str) -> str:
    if not is_ulid(start):
        return "<yyyy>/<mm>/<dd>"
    try:
        moment = datetime.fromtimestamp(ulid_time_ms(start) / 1000, tz=timezone.utc)
    except ValueError:  # beyond the year 9999: no bundle of ours
        return "<yyyy>/<mm>/<dd>"
    return f"{moment:%Y/%m/%d}"


def _text(told: list[Whereabouts]) -> list[str]:
    lines = []
    for one in told:
        lines.append(f"{one.id} in {one.spool}")
        lines += [f"  {line}" for line in one.lines]
    return lines


def _tell_ambiguous(asked: str, told: list[Whereabouts]) -> int:
    ids = sorted({one.id for one in told})
    print(f"aod-shipper: {asked} is the beginning of {len(ids)} ids:", file=sys.stderr)
    for bundle_id in ids[:10]:
        print(f"  {bundle_id}", file=sys.stderr)
    return EXIT_USAGE


COMMAND = Command(
    name="why",
    purpose="where one bundle is, and why it is not in the store yet",
    run=run,
    details="Tells what was done with a bundle and what will be: collecting, pending with its "
    "place in the queue and what is in the way, being uploaded, delivered under which key, in "
    "quarantine, or evicted. On a central host every inbox is searched. Exit status: 0 it is "
    "delivered, 1 it is not, 2 there is no such bundle here (and how to search the store).",
    examples=(
        ("aod-shipper why 01KE8Q", "the beginning of an id is enough"),
        ("aod-shipper why /var/log/aod/batches/01KE8Q...done", "the name of a file as well"),
        ("aod-shipper why 01KE8Q... --json", "for a script: found[0].state"),
    ),
    add_arguments=add_arguments,
)
