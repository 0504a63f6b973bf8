"""Where a bundle is and why: what was done with it, and what will be."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from agent.configuration.settings_document import printable
from agent.storage import durable_file
from agent.storage.spool import (
    ARCHIVE,
    DONE,
    EVICTED,
    EVICTED_SHIPPED,
    QUARANTINED,
    SHIPPED,
    UPLOADING,
)
from agent.storage.tombstone import SIZE, read_tombstone
from agent.storage.ulid import ulid_time_ms
from shipper.inspection.bundle_finder import STAGING, FoundBundle
from shipper.spools.lock_holder import Holder
from shipper.status.shipper_state import PAUSED, ShipperState
from shipper.status.status import queue_of
from shipper.wording import UNKNOWN, iso_time, since_text, size_text

DELIVERED = "delivered"
_FINISHED = frozenset({ARCHIVE, DONE})


@dataclass(frozen=True)
class Scene:
    """What goes on around the bundle at ``now`` (seconds since the epoch)."""

    state: ShipperState
    running: Holder | None
    now: float


@dataclass(frozen=True)
class Whereabouts:
    """``state`` in one word, ``lines`` in words for people; ``document`` is the file that decided
    it: receipt, mark or tombstone."""

    id: str
    host: str | None
    spool: str
    state: str
    lines: list[str]
    files: list[str]
    document: dict[str, Any] = field(default_factory=dict)


def tell_whereabouts(bundle: FoundBundle, scene: Scene) -> Whereabouts:
    """The most final of a bundle's files decides, as in the spool's counts. Raises OSError."""
    state, tell, suffix = _fate(bundle)
    return Whereabouts(
        id=bundle.id,
        host=bundle.source.host,
        spool=str(bundle.source.spool.root),
        state=state,
        lines=[_printable(line) for line in tell(bundle, scene)],
        files=sorted(bundle.id + part for part in bundle.parts - {STAGING}),
        document=bundle.document(suffix) if suffix else {},
    )


_Teller = Callable[[FoundBundle, Scene], list[str]]


def _fate(bundle: FoundBundle) -> tuple[str, _Teller, str]:
    """Its state, what tells of it, and the suffix of the file that decides."""
    fates: list[tuple[set[str] | frozenset[str], tuple[str, _Teller, str]]] = [
        ({SHIPPED}, (DELIVERED, _delivered, SHIPPED)),
        ({EVICTED}, ("evicted", _evicted, EVICTED)),
        (_FINISHED | {QUARANTINED}, ("quarantined", _quarantined, QUARANTINED)),
        (_FINISHED | {UPLOADING}, ("uploading", _pending, "")),
        (_FINISHED, ("pending", _pending, "")),
    ]
    return next((fate for parts, fate in fates if parts <= bundle.parts), _UNFINISHED)


def _delivered(bundle: FoundBundle, scene: Scene) -> list[str]:
    receipt = bundle.document(SHIPPED)
    here = "still here" if bundle.parts >= _FINISHED else "no longer here"
    if not receipt:
        return [f"delivered; its receipt cannot be read, its archive is {here}"]
    return [
        f"delivered {since_text(receipt.get('shipped_at'), scene.now)}; its archive is {here}",
        f"to        {receipt.get('destination')}",
        f"key       {receipt.get('key')}",
        f"manifest  {receipt.get('manifest_key')}",
        f"size      {receipt.get('size')} bytes, sha256 {receipt.get('sha256')}",
        f"attempts  {receipt.get('attempts')}, by aod-shipper {receipt.get('shipper_version')}",
    ]


def _evicted(bundle: FoundBundle, scene: Scene) -> list[str]:
    path = bundle.source.spool.path(bundle.id, EVICTED)
    grave = read_tombstone(bundle.id, durable_file.read_plain(path))
    reason = "the spool was full" if grave["reason"] == SIZE else grave["reason"]
    known = bundle.document(EVICTED_SHIPPED)
    if EVICTED_SHIPPED in bundle.parts:
        told = f"the store knows of it: {known.get('key')} {known.get('shipped_at')}"
    else:
        told = "the store does not know of it yet: its tombstone is shipped after the bundles"
    return [
        f"evicted before it was shipped {since_text(grave['evicted_at'], scene.now)}: {reason}",
        f"lost      {_size(grave['size'])}, anomaly {grave['anomaly'] or UNKNOWN}, "
        f"incident {grave['incident'] or UNKNOWN}",
        told,
    ]


def _quarantined(bundle: FoundBundle, scene: Scene) -> list[str]:
    mark = bundle.document(QUARANTINED)
    since = mark.get("since") or iso_time(
        bundle.source.spool.path(bundle.id, QUARANTINED).lstat().st_mtime
    )
    return [
        f"in quarantine since {since_text(since, scene.now)}: {mark.get('reason') or UNKNOWN}",
        f"remedy    {mark.get('remedy') or UNKNOWN}",
        "it is not tried again as long as its files stay the same; once they are right: "
        f"aod-shipper requeue {bundle.id}",
    ]


def _pending(bundle: FoundBundle, scene: Scene) -> list[str]:
    queue = queue_of(bundle.source.spool)
    place = next((n for n, one in enumerate(queue, 1) if one.id == bundle.id), None)
    where = f"the inbox of {bundle.source.host}" if bundle.source.host else "the queue"
    size = next((one.size for one in queue if one.id == bundle.id), 0)
    made = since_text(iso_time(ulid_time_ms(bundle.id) / 1000), scene.now)
    lines = [f"pending: number {place or '?'} of {len(queue)} in {where}, the newest goes first"]
    if UPLOADING in bundle.parts:
        lines = [f"being uploaded: {_parts(bundle.document(UPLOADING), size)}"]
    return [*lines, f"size      {_size(size)}, made {made}", *_hindrances(bundle, scene)]


def _parts(note: dict[str, Any], size: int) -> str:
    etags, part_size = note.get("etags"), note.get("part_size")
    done = len(etags) if isinstance(etags, list) else UNKNOWN
    total = math.ceil(size / part_size) if isinstance(part_size, int) and part_size > 0 else "?"
    return f"{done} of {total} parts are in the store"


def _hindrances(bundle: FoundBundle, scene: Scene) -> list[str]:
    """Why it is not in the store yet, and what happens next."""
    if scene.running is None:
        return ["waits because no shipper runs: systemctl start aod-shipper, or aod-shipper once"]
    state = scene.state
    own = [fault for fault in state.faults if fault.bundle == bundle.id]
    lines = []
    for fault in own or (state.pause_faults if state.state == PAUSED else []):
        lines += [
            f"{'stays' if own else 'waits'} since {since_text(fault.since, scene.now)}, because of "
            f"a {fault.kind} fault: {fault.message}",
            f"remedy    {fault.remedy}",
        ]
    if state.state == PAUSED:
        next_try = since_text(state.next_try, scene.now)
        return [*lines, f"next try  {next_try}; at once with: aod-shipper retry"]
    return lines or ["nothing is in its way: it goes when its turn comes"]


def _unfinished(bundle: FoundBundle, scene: Scene) -> list[str]:
    if STAGING in bundle.parts:
        return [
            "not finished: the agent is collecting it, or was killed meanwhile; then its next "
            "start makes a bundle of what there is (aod-agent status shows what runs)"
        ]
    if ARCHIVE in bundle.parts:
        return [
            "not finished: its archive has no marker yet. If no agent runs, its next start removes "
            "what a killed one left"
        ]
    return ["gone: of the bundle there are only leftovers, and no word on what became of it"]


_UNFINISHED: tuple[str, _Teller, str] = ("unfinished", _unfinished, "")


def _size(count: object) -> str:
    return f"{count} bytes ({size_text(count)})" if isinstance(count, int) else "unknown size"


def _printable(line: str) -> str:
    return printable(line, 1000)
