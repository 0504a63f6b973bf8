"""Folds what is left of old bundles into two numbers, so that a spool does not grow for ever."""

from __future__ import annotations

from dataclasses import replace

from agent.storage import durable_file
from agent.storage.history import History
from agent.storage.spool import (
    ARCHIVE,
    DONE,
    EVICTED,
    EVICTED_SHIPPED,
    QUARANTINED,
    SHIPPED,
    Spool,
)
from agent.storage.spool_listing import ids_by_suffix
from agent.storage.ulid import ulid_time_ms

FOLD_AFTER_SEC = 14 * 86_400.0

# A tombstone goes before the note that it is in the store: the shipper would send it once more.
_REMNANTS = (EVICTED, EVICTED_SHIPPED, QUARANTINED, SHIPPED)


class Folding:
    """Folds the receipts, and the tombstones that are in the store, of bundles that are gone.

    Only from 14 days after the bundle was made *and* its receipt written: younger ones are asked
    for. The receipt of the youngest bundle stays, as the last delivery that the status tells of.

    Counts are true at every instant: the numbers are written together with the ids that they now
    contain; of these no file counts any more; then the files go; then the list. One thread.
    """

    def __init__(self, spool: Spool) -> None:
        self._spool = spool

    def fold(self, now_sec: float) -> int:
        """Fold what is old at the wall clock's ``now_sec``; how many bundles that were.

        Finishes what a killed run began. Raises OSError; the next call then goes on.
        """
        history, names = self._spool.history.read(), ids_by_suffix(self._spool.batches)
        delivered, evicted = (
            {one for one in ids - history.folding if self._is_old(one, suffix, now_sec)}
            for suffix, ids in _ended(names).items()
        )
        if delivered or evicted:
            history = History(
                history.delivered + len(delivered),
                history.evicted + len(evicted),
                history.folding | delivered | evicted,
            )
            self._spool.history.write(history)
        if history.folding:
            self._remove_remnants(history)
        return len(delivered) + len(evicted)

    def _is_old(self, bundle_id: str, suffix: str, now_sec: float) -> bool:
        limit_sec = now_sec - FOLD_AFTER_SEC
        if ulid_time_ms(bundle_id) / 1000 > limit_sec:
            return False
        return self._spool.path(bundle_id, suffix).lstat().st_mtime <= limit_sec

    def _remove_remnants(self, history: History) -> None:
        names = ids_by_suffix(self._spool.batches)
        stuck: set[str] = set()
        failures: list[OSError] = []
        for suffix in _REMNANTS:
            for bundle_id in (history.folding & names.get(suffix, set())) - stuck:
                try:
                    self._spool.path(bundle_id, suffix).unlink(missing_ok=True)
                except OSError as error:
                    failures.append(error)
                    stuck.add(bundle_id)
        if stuck != history.folding:
            durable_file.sync_directory(self._spool.batches)
            self._spool.history.write(replace(history, folding=frozenset(stuck)))
        if failures:
            raise failures[0]


def _ended(names: dict[str, set[str]]) -> dict[str, set[str]]:
    """Bundles of which nothing more will come, by what says so: receipts, delivered tombstones."""
    there = names.get(ARCHIVE, set()) | names.get(DONE, set())
    delivered = names.get(SHIPPED, set()) - there
    evicted = (names.get(EVICTED, set()) & names.get(EVICTED_SHIPPED, set())) - there
    youngest = {max(delivered)} if delivered else set()
    return {SHIPPED: delivered - youngest, EVICTED_SHIPPED: evicted - delivered}
