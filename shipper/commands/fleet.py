"""``aod-shipper fleet``."""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict

from agent.configuration.settings_document import printable
from shipper.commands.command import EXIT_LEFT_BEHIND, EXIT_OK, Command
from shipper.configuration.schema import RelayDestination, ShipperConfig
from shipper.destinations.store_reader import open_readers
from shipper.inspection.fleet import SILENT_INTERVALS, Fleet, FleetHost, read_fleet
from shipper.wording import NOTHING, size_text, span_text, table

_HEADER = ("HOST", "STATE", "LAST SEEN", "PENDING", "BYTES", "OLDEST", "EVICTED", "QUARANTINED")


def run(config: ShipperConfig, options: argparse.Namespace) -> int:
    """The fleet by its heartbeats."""
    readers = open_readers(config)
    if not readers and isinstance(config.destination, RelayDestination):
        host = config.destination.host
        print(f"aod-shipper: the store is behind the relay: run this on {host}", file=sys.stderr)
        return EXIT_LEFT_BEHIND
    (reader,) = readers.values()
    fleet = read_fleet(reader, config.prefix, time.time())
    if options.json:
        print(json.dumps(asdict(fleet), indent=2))
    else:
        print("\n".join(_lines(fleet)))
    return EXIT_LEFT_BEHIND if fleet.silent else EXIT_OK


def _lines(fleet: Fleet) -> list[str]:
    lines = table(_HEADER, [_row(host) for host in fleet.hosts], left=2) if fleet.hosts else []
    for host in fleet.hosts:
        if host.fault:
            lines.append(f"{host.host}: {printable(host.fault, 300)}")
    lines.append(
        f"{len(fleet.hosts)} hosts, {fleet.silent} silent (no heartbeat for {SILENT_INTERVALS} "
        "intervals)"
    )
    if fleet.without_heartbeat:
        lines.append(f"without any heartbeat: {', '.join(fleet.without_heartbeat)}")
    return lines


def _row(host: FleetHost) -> list[str]:
    oldest = host.oldest_pending_age_sec
    counts = [
        NOTHING if count is None else str(count)
        for count in (host.pending, host.evicted, host.quarantined)
    ]
    return [
        host.host,
        "SILENT" if host.silent else printable(host.state or NOTHING, 20),
        f"{span_text(host.age_sec)} ago",
        counts[0],
        NOTHING if host.pending_bytes is None else size_text(host.pending_bytes),
        NOTHING if oldest is None else span_text(oldest),
        *counts[1:],
    ]


COMMAND = Command(
    name="fleet",
    purpose="all hosts by their heartbeats in the store: who is silent, who has a backlog",
    run=run,
    details="Lists the heartbeat of every host below the configured prefix, silent ones first. "
    "What a host tells is as old as its heartbeat. Reading needs s3:GetObject and s3:ListBucket, "
    "or the directory. Exit status 1 when somebody is silent.",
    examples=(
        ("aod-shipper fleet", "a line for each host"),
        ("aod-shipper fleet --json", "for a monitoring system"),
        ("aod-shipper fleet --config reader.yaml", "from a laptop, with a key that may read"),
    ),
)
