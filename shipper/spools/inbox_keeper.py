"""Clears inboxes: what is in the store goes, what cannot get there is bounded."""

from __future__ import annotations

import time
from collections.abc import Callable

from agent.storage.folding import Folding
from agent.storage.spool import SpooledBundle
from agent.storage.tombstone import make_tombstone
from shipper.moments import utc_now
from shipper.spools.sources import Source

QUARANTINE_BYTES = 256 << 20
INTERVAL_SEC = 3600.0


class InboxKeeper:
    """Does in an inbox what the agent's SpaceWatcher does in a spool; an own spool is its own.

    A delivered bundle goes with its receipt: `keep` clears what a killed run left, folds old
    receipts, and evicts the oldest quarantined bundles beyond ``quarantine_bytes`` of a host; each
    leaves a tombstone. Once in `INTERVAL_SEC` for each inbox. One thread.
    """

    def __init__(
        self,
        quarantine_bytes: int = QUARANTINE_BYTES,
        steady: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._quarantine_bytes = quarantine_bytes
        self._steady = steady
        self._wall = wall
        self._kept: dict[str, float] = {}

    def keep(self, source: Source) -> None:
        """Clear the inbox, if it is one and its time has come. Raises OSError."""
        now = self._steady()
        if source.host is None or now - self._kept.get(source.host, -INTERVAL_SEC) < INTERVAL_SEC:
            return
        self._kept[source.host] = now
        quarantined = []
        for bundle in source.spool.finished():
            if bundle.shipped or bundle.evicted:
                source.spool.remove(bundle, None)
            elif bundle.quarantined:
                quarantined.append(bundle)
        self._bound(source, quarantined)
        Folding(source.spool).fold(self._wall())

    def _bound(self, source: Source, quarantined: list[SpooledBundle]) -> None:
        kept = 0
        for bundle in sorted(quarantined, key=lambda one: one.id, reverse=True):
            kept += bundle.size
            if kept > self._quarantine_bytes:
                source.spool.remove(bundle, make_tombstone(bundle, _manifest(bundle), utc_now()))


def _manifest(bundle: SpooledBundle) -> dict[str, object]:
    try:
        return bundle.manifest()
    except (OSError, ValueError, RecursionError):  # no wonder in quarantine
        return {}
