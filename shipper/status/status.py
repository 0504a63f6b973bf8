"""How shipping stands on this host, all of it read from files: for status, metrics, heartbeat."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from agent.storage import durable_file
from agent.storage.spool import ARCHIVE, DONE, EVICTED, QUARANTINED, SHIPPED, Spool, SpooledBundle
from agent.storage.spool_counts import SpoolCounts
from agent.storage.spool_listing import ids_by_suffix
from agent.storage.ulid import ulid_time_ms
from shipper.configuration.schema import ShipperConfig
from shipper.faults import HostFault, spool_fault
from shipper.spools.lock_holder import Holder, find_holder
from shipper.spools.sources import Source, find_sources
from shipper.spools.state_directory import state_directory
from shipper.status.shipper_state import SHIPPING, FaultNote, ShipperState, StateFile
from shipper.wording import iso_time

HEARTBEAT_FILE = "heartbeat.json"


@dataclass(frozen=True)
class Waiting:
    """A pending bundle and the age of its trigger."""

    id: str
    age_sec: float


@dataclass(frozen=True)
class SourceStatus:
    """One spool, or all together. ``last_delivery`` is the newest receipt; ``tombstones`` are
    those of which the store does not know yet; ``last_heartbeat`` is when an inbox got it;
    ``agent_version`` made the newest bundle that is still here."""

    spool: str
    host: str | None
    counts: SpoolCounts
    tombstones: int = 0
    oldest_pending: Waiting | None = None
    newest_pending: Waiting | None = None
    last_delivery: dict[str, Any] | None = None
    last_heartbeat: str | None = None
    agent_version: str | None = None


@dataclass(frozen=True)
class ShipperStatus:
    """The whole host at ``time`` (seconds since the epoch).

    ``running`` is whoever ships now; ``state`` its last word, or that of the last that ran.
    ``sources`` begins with the host's own spool.
    """

    time: float
    destination: str
    running: Holder | None
    state: ShipperState
    total: SourceStatus
    sources: list[SourceStatus]

    @property
    def eta_sec(self) -> float | None:
        """When the queue is empty, by the recent rate; None when nobody can know."""
        rate = self.state.bytes_per_sec
        if self.running is None or self.state.state != SHIPPING or not rate:
            return None
        return self.total.counts.pending_bytes / rate

    @property
    def is_fine(self) -> bool:
        """Whether nothing is in the way of any bundle."""
        counts = self.total.counts
        stuck = counts.quarantined or counts.fault or (counts.pending and self.running is None)
        return not stuck and not self.state.faults

    def as_json(self) -> str:
        """One JSON object: the fields as here and in `SourceStatus`, that of all on top."""
        document = {
            "time": iso_time(self.time),
            "destination": self.destination,
            "running": None if self.running is None else asdict(self.running),
            "state": asdict(self.state),
            "eta_sec": self.eta_sec,
            **asdict(self.total),
            "sources": [asdict(source) for source in self.sources],
        }
        return json.dumps(document, indent=2)


def read_status(config: ShipperConfig, destination: str, now: float) -> ShipperStatus:
    """The status at ``now``, the wall clock's seconds. Raises OSError when it may not be read.

    One inbox of many that cannot be read is told of in its counts.
    """
    own, *inboxes = find_sources(config)
    sources = [read_source(own, now), *(_read_inbox(inbox, now) for inbox in inboxes)]
    state, total = StateFile(state_directory(config)).read(), _total(sources)
    if total.counts.pending or total.tombstones:
        state = _with_full_disks(state, [source.spool.batches for source in (own, *inboxes)], now)
    return ShipperStatus(
        time=now,
        destination=destination,
        running=find_running(config),
        state=state,
        total=total,
        sources=sources,
    )


def _with_full_disks(state: ShipperState, places: Sequence[Path], now: float) -> ShipperState:
    """A disk that takes no receipt takes no state either: the last one tells of better days."""
    reason = next(filter(None, map(_why_nothing_fits, places)), None)
    if reason is None or any(fault.kind == HostFault.kind for fault in state.faults):
        return state
    fault = spool_fault("takes no receipt", OSError(reason, os.strerror(reason)))
    note = FaultNote(fault.kind, fault.message, fault.remedy, iso_time(now))
    return replace(state, faults=[note, *state.faults])


def _why_nothing_fits(place: Path) -> int | None:
    """The errno with which a new file there would fail for want of room, as far as it shows."""
    try:
        disk = os.statvfs(place)
    except OSError:  # told of by the counts, or an empty spool
        return None
    if disk.f_flag & os.ST_RDONLY:
        return errno.EROFS
    full = disk.f_bavail == 0 or (disk.f_files and disk.f_favail == 0)
    return errno.ENOSPC if full else None


def find_running(config: ShipperConfig) -> Holder | None:
    """Who ships this host's bundles now. Raises OSError when that cannot be asked."""
    held = {Spool(config.spool).batches, state_directory(config)}
    return next(filter(None, map(find_holder, sorted(held))), None)


def queue_of(spool: Spool) -> list[SpooledBundle]:
    """What waits to be shipped, the newest bundle first. Raises OSError."""
    waiting = [
        one for one in spool.finished() if not (one.shipped or one.quarantined or one.evicted)
    ]
    return waiting[::-1]


def read_source(source: Source, now: float) -> SourceStatus:
    """How one spool stands. Raises OSError when it may not be read.

    From the names, as far as they tell: a backlog may be long, and the service's memory is small.
    """
    spool, counts = source.spool, source.spool.counts()
    names = ids_by_suffix(spool.batches)
    finished = names.get(DONE, set()) & names.get(ARCHIVE, set())
    queue = finished.difference(*(names.get(one, ()) for one in (SHIPPED, QUARANTINED, EVICTED)))
    return SourceStatus(
        spool=str(spool.root),
        host=source.host,
        counts=counts,
        tombstones=len(spool.undelivered_tombstones()),
        oldest_pending=_waiting(min(queue), now) if queue else None,
        newest_pending=_waiting(max(queue), now) if queue else None,
        last_delivery=_newest_receipt(spool, names.get(SHIPPED, set())),
        last_heartbeat=None if source.host is None else _heartbeat_time(spool),
        agent_version=_agent_version(spool.path(max(finished), DONE)) if finished else None,
    )


def _read_inbox(inbox: Source, now: float) -> SourceStatus:
    try:
        return read_source(inbox, now)
    except OSError as error:
        return SourceStatus(str(inbox.spool.root), inbox.host, SpoolCounts(fault=str(error)))


def _waiting(bundle_id: str, now: float) -> Waiting:
    return Waiting(bundle_id, max(0.0, now - ulid_time_ms(bundle_id) / 1000))


def _total(sources: Sequence[SourceStatus]) -> SourceStatus:
    oldest = [one.oldest_pending for one in sources if one.oldest_pending]
    newest = [one.newest_pending for one in sources if one.newest_pending]
    receipts = [one.last_delivery for one in sources if one.last_delivery]
    return SourceStatus(
        spool=sources[0].spool,
        host=None,
        counts=_sum([one.counts for one in sources]),
        tombstones=sum(one.tombstones for one in sources),
        oldest_pending=max(oldest, key=lambda one: one.age_sec, default=None),
        newest_pending=min(newest, key=lambda one: one.age_sec, default=None),
        last_delivery=max(receipts, key=lambda one: str(one.get("shipped_at")), default=None),
    )


def _sum(counts: Sequence[SpoolCounts]) -> SpoolCounts:
    numbers = [field.name for field in fields(SpoolCounts) if field.name != "fault"]
    return SpoolCounts(
        fault="; ".join(one.fault for one in counts if one.fault),
        **{name: sum(getattr(one, name) for one in counts) for name in numbers},
    )


def _newest_receipt(spool: Spool, shipped: set[str]) -> dict[str, Any] | None:
    paths = (spool.path(one, SHIPPED) for one in shipped)
    try:
        newest = max(paths, key=lambda path: path.lstat().st_mtime_ns)
        receipt = json.loads(durable_file.read_plain(newest))
    except (OSError, ValueError, RecursionError):  # none yet, or not one of ours
        return None
    return receipt if isinstance(receipt, dict) else None


def _agent_version(done: Path) -> str | None:
    try:
        version = json.loads(durable_file.read_plain(done))["agent_version"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None  # gone meanwhile, or a bad bundle
    return version if isinstance(version, str) else None


def _heartbeat_time(spool: Spool) -> str | None:
    try:
        return iso_time(os.lstat(spool.root / HEARTBEAT_FILE).st_mtime)
    except FileNotFoundError:
        return None
