"""The sign of life of a host in the store: silence, and a backlog, show in the bucket."""

from __future__ import annotations

import json
from typing import Any

from agent import __version__
from agent.storage.spool import as_bytes
from shipper.destinations.document import Document
from shipper.destinations.object_key import heartbeat_key
from shipper.status.shipper_state import FaultNote
from shipper.status.status import ShipperStatus, SourceStatus
from shipper.wording import iso_time

SCHEMA = 1
FAULTS_TOLD = 5
SIZE_LIMIT = 64 << 10


def heartbeat(
    status: ShipperStatus, host: str, kernel: str, prefix: str, interval_sec: float
) -> Document:
    """The heartbeat of ``host`` at the status' time; a pure function.

    It tells of the host's own spool, and on a central host of the inboxes as a whole. ``kernel``
    is the running kernel's release. The next one comes after ``interval_sec``.
    """
    own, state = status.sources[0], status.state
    content = {
        "schema": SCHEMA,
        "host": host,
        "time": iso_time(status.time),
        "interval_sec": interval_sec,
        "shipper_version": __version__,
        "agent_version": own.agent_version,
        "kernel": kernel,
        "state": state.state,
        "since": state.since,
        "faults": [_fault(fault) for fault in state.faults[:FAULTS_TOLD]],
        "last_success": state.last_success,
        **_bundles(own),
    }
    if status.sources[1:]:
        content["inboxes"] = {"hosts": len(status.sources) - 1, **_backlog(status.sources[1:])}
    return Document("heartbeat", host, heartbeat_key(prefix, host), as_bytes(content))


def relayed_heartbeat(content: bytes, host: str, prefix: str, relayed_at: str) -> Document:
    """What ``host`` sent to a relay, for the store: unchanged, but for when it was relayed and
    for its name, which is the inbox's, whatever the host claims.

    Raises ValueError when it is no heartbeat.
    """
    document = parse_heartbeat(content)
    document |= {"host": host, "relayed_at": relayed_at}
    try:
        # Python reads and writes NaN, which is no JSON: every query over the fleet would fail.
        text = json.dumps(document, indent=2, allow_nan=False)
    except RecursionError as error:  # Python 3.12 reads deeper than it writes
        raise ValueError("nested too deep") from error
    return Document("heartbeat", host, heartbeat_key(prefix, host), text.encode() + b"\n")


def parse_heartbeat(content: bytes) -> dict[str, Any]:
    """The members of a heartbeat; from another host, so nothing in it is to be trusted.

    Raises ValueError when it is none.
    """
    if len(content) > SIZE_LIMIT:
        raise ValueError(f"larger than {SIZE_LIMIT} bytes")
    try:
        document = json.loads(content)
    except RecursionError as error:
        raise ValueError("nested too deep") from error
    if not isinstance(document, dict) or not isinstance(document.get("schema"), int):
        raise ValueError("not a heartbeat")
    return document


def _bundles(own: SourceStatus) -> dict[str, object]:
    counts = own.counts
    return {
        "bundles": None
        if counts.fault
        else {
            "made": counts.made,
            "delivered": counts.delivered,
            "pending": counts.pending,
            "evicted": counts.evicted,
            "quarantined": counts.quarantined,
        },
        "spool_fault": counts.fault or None,
        **_backlog([own]),
        "pending_tombstones": own.tombstones,
    }


def _backlog(sources: list[SourceStatus]) -> dict[str, object]:
    ages = [one.oldest_pending.age_sec for one in sources if one.oldest_pending]
    return {
        "pending": sum(one.counts.pending for one in sources),
        "pending_bytes": sum(one.counts.pending_bytes for one in sources),
        "oldest_pending_age_sec": round(max(ages)) if ages else None,
    }


def _fault(fault: FaultNote) -> dict[str, object]:
    return {
        "kind": fault.kind,
        "message": fault.message,
        "remedy": fault.remedy,
        "since": fault.since,
        "bundle": fault.bundle,
    }
