"""``aod-shipper verify``."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from dataclasses import asdict

from agent.configuration.settings_document import printable
from shipper.commands.command import EXIT_LEFT_BEHIND, EXIT_OK, Command
from shipper.configuration.schema import RelayDestination, ShipperConfig
from shipper.destinations.store_reader import open_readers
from shipper.inspection.progress import Progress
from shipper.inspection.verification import (
    ELSEWHERE,
    RIGHT,
    Finding,
    Receipt,
    Verification,
    read_receipts,
)
from shipper.spools.sources import find_sources


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """``--deep``."""
    parser.add_argument(
        "--deep",
        action="store_true",
        help="read the bytes of every archive, instead of believing the sha256 in its metadata",
    )


def run(config: ShipperConfig, options: argparse.Namespace) -> int:
    """Bucket against receipts."""
    try:
        receipts = read_receipts(find_sources(config))
    except OSError as error:
        print(f"aod-shipper: the spool cannot be read: {error}", file=sys.stderr)
        return EXIT_LEFT_BEHIND
    findings = _verify(config, receipts, options)
    counts = Counter(finding.verdict for finding in findings)
    if options.json:
        wrong = [asdict(finding) for finding in findings if finding.verdict != RIGHT]
        print(json.dumps({"counts": counts, "findings": wrong}, indent=2))
    else:
        print(_summary(counts))
        if counts[ELSEWHERE]:
            print(_elsewhere(config))
    return EXIT_OK if counts[RIGHT] == len(receipts) else EXIT_LEFT_BEHIND


def _verify(
    config: ShipperConfig, receipts: list[Receipt], options: argparse.Namespace
) -> list[Finding]:
    total_bytes = sum(receipt.size for receipt in receipts) if options.deep else 0
    findings = []
    verification = Verification(open_readers(config), options.deep)
    with Progress(len(receipts), total_bytes, sys.stderr) as progress:
        for finding in verification.run(receipts):
            findings.append(finding)
            progress.advance(finding.size)
            if finding.verdict not in (RIGHT, ELSEWHERE) and not options.json:
                with progress.hidden():
                    print("\n".join(_lines(finding)), flush=True)
    return findings


def _lines(finding: Finding) -> list[str]:
    title = f"{finding.verdict.upper()} {finding.id}: {finding.reason}"
    lines = [title, f"  key     {finding.key}", f"  remedy  {finding.remedy}"]
    return [printable(line, 1000) for line in lines]


def _summary(counts: Counter[str]) -> str:
    if not counts:
        return "nothing to verify: there is no receipt"
    others = [f"{count} {verdict}" for verdict, count in sorted(counts.items()) if verdict != RIGHT]
    return ", ".join([f"{counts[RIGHT]} right", *others])


def _elsewhere(config: ShipperConfig) -> str:
    if isinstance(config.destination, RelayDestination):
        return (
            "elsewhere: what a relay acknowledged cannot be verified from here; run "
            f"`aod-shipper verify` on {config.destination.host}"
        )
    return "elsewhere: their receipts name another store than the configuration does now"


COMMAND = Command(
    name="verify",
    purpose="compare the store with the receipts",
    run=run,
    details="For every receipt that is still here (two weeks at least): is its manifest in the "
    "store, and its archive, with the same size and sha256? A directory's files are read; of a "
    "bucket the metadata are, and with --deep the archives. Reading needs s3:GetObject and "
    "s3:ListBucket, which the shipper's own key is better off without: name another key in a copy "
    "of the configuration. Exit status 1 unless everything is right.",
    examples=(
        ("aod-shipper verify", "prints what is missing or different, with a remedy"),
        ("aod-shipper verify --deep --json", "every byte; for a script"),
        ("aod-shipper verify --config reader.yaml", "with a key that may read"),
    ),
    add_arguments=add_arguments,
)
