"""The fleet as its heartbeats in the store show it: who is silent, who has a backlog."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from shipper.configuration.schema import ShipperConfig
from shipper.destinations.object_key import heartbeat_key, safe_name
from shipper.destinations.store_reader import StoredDocument, StoreReader
from shipper.status.heartbeat import parse_heartbeat
from shipper.wording import iso_time, parse_time

SILENT_INTERVALS = 3

_CONCURRENCY = 8
_INTERVALS = (1.0, 7 * 86_400.0)


@dataclass(frozen=True)
class FleetHost:
    """One host by its last heartbeat. ``silent``: `SILENT_INTERVALS` of them are overdue.

    What it tells of itself is None where it tells nothing sensible.
    """

    host: str
    last_seen: str
    age_sec: float
    silent: bool
    state: str | None
    fault: str | None
    pending: int | None
    pending_bytes: int | None
    oldest_pending_age_sec: int | None
    evicted: int | None
    quarantined: int | None
    agent_version: str | None
    shipper_version: str | None


@dataclass(frozen=True)
class Fleet:
    """All hosts, the silent ones first; and folders in the store in which no heartbeat lies."""

    hosts: list[FleetHost]
    without_heartbeat: list[str]

    @property
    def silent(self) -> int:
        """How many are silent."""
        return sum(host.silent for host in self.hosts)


def read_fleet(reader: StoreReader, prefix: str, now: float) -> Fleet:
    """The fleet at ``now`` (seconds since the epoch). Raises what the reader raises."""
    below = heartbeat_key(prefix, "host").removesuffix("host/heartbeat.json")
    names = [name for name in reader.folders(below) if name == safe_name(name)]
    with ThreadPoolExecutor(_CONCURRENCY) as threads:
        try:
            found = list(threads.map(lambda name: reader.read(heartbeat_key(prefix, name)), names))
        finally:
            threads.shutdown(cancel_futures=True)
    beats = {name: document for name, document in zip(names, found, strict=True) if document}
    hosts = [_host(name, document, now) for name, document in beats.items()]
    return Fleet(
        sorted(hosts, key=lambda host: (not host.silent, host.host)),
        [name for name in names if name not in beats],
    )


def _host(name: str, document: StoredDocument, now: float) -> FleetHost:
    try:
        told = parse_heartbeat(document.content)
    except ValueError:
        told = {}
    # The store's clock; or the host's, when what it sent waited at a relay.
    seen = min(document.modified, parse_time(told.get("time")) or document.modified)
    bundles = told.get("bundles")
    counts = bundles if isinstance(bundles, dict) else {}
    return FleetHost(
        host=name,
        last_seen=iso_time(seen),
        age_sec=max(0.0, now - seen),
        silent=now - seen > SILENT_INTERVALS * _interval(told),
        state=_text(told, "state"),
        fault=_fault(told),
        pending=_count(told, "pending"),
        pending_bytes=_count(told, "pending_bytes"),
        oldest_pending_age_sec=_count(told, "oldest_pending_age_sec"),
        evicted=_count(counts, "evicted"),
        quarantined=_count(counts, "quarantined"),
        agent_version=_text(told, "agent_version"),
        shipper_version=_text(told, "shipper_version"),
    )


def _interval(told: dict[str, Any]) -> float:
    """Within reason: no host may say that it will be silent for a year."""
    interval = told.get("interval_sec")
    if isinstance(interval, bool) or not isinstance(interval, (int, float)):
        return ShipperConfig.heartbeat_interval_sec
    shortest, longest = _INTERVALS
    return min(max(shortest, interval), longest)


def _fault(told: dict[str, Any]) -> str | None:
    """The first fault: the one that concerns all, if any does."""
    faults = told.get("faults")
    first = faults[0] if isinstance(faults, list) and faults else None
    return _text(first, "message") if isinstance(first, dict) else None


def _text(members: dict[str, Any], name: str) -> str | None:
    value = members.get(name)
    return value if isinstance(value, str) else None


def _count(members: dict[str, Any], name: str) -> int | None:
    value = members.get(name)
    return value if type(value) is int and 0 <= value < 1 << 63 else None
