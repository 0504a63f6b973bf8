"""The SpaceWatcher: keeps the spool within its bounds of age, size and free space."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timezone

from agent.configuration.schema import CleanupConfig
from agent.service.audit import Audit
from agent.storage.folding import Folding
from agent.storage.free_space import MEGABYTE, FreeSpace
from agent.storage.spool import Manifest, Spool, SpooledBundle
from agent.storage.tombstone import make_tombstone

log = logging.getLogger("aod.space")

START_SHARE = 0.9
STOP_SHARE = 0.5
DAY_SEC = 86_400.0


@dataclass(frozen=True)
class Clock:
    """Seconds since the epoch, and seconds that never jump."""

    wall: Callable[[], float] = time.time
    steady: Callable[[], float] = time.monotonic


@dataclass(frozen=True)
class SpaceStatistics:
    """Since the start: bundles removed after shipping, evicted before it, and folded into the
    history; and what went wrong."""

    removed: int = 0
    evicted: int = 0
    folded: int = 0
    spool_recreated: int = 0
    failed: int = 0
    last_failure: str = ""


class Sweep:
    """One look at the bundles: those that are left, and their bytes."""

    def __init__(
        self, bundles: Iterable[SpooledBundle], remove: Callable[[SpooledBundle], bool]
    ) -> None:
        self._remove = remove
        self.left = {bundle.id: bundle for bundle in bundles}
        self.total = sum(bundle.size for bundle in self.left.values())

    def having(self, shipped: bool) -> list[SpooledBundle]:
        """In the order in which they may go: quarantined ones first, then the oldest."""
        chosen = [bundle for bundle in self.left.values() if bundle.shipped == shipped]
        return sorted(chosen, key=lambda bundle: (not bundle.quarantined, bundle.id))

    def shrink(self, candidates: Iterable[SpooledBundle], target: float = -1) -> None:
        """Remove one after the other until at most ``target`` bytes are left; -1: all of them."""
        for bundle in candidates:
            if self.total <= target:
                return
            if self._remove(bundle):
                del self.left[bundle.id]
                self.total -= bundle.size


class SpaceWatcher:
    """Removes finished bundles; the rules, and why, are in docs/decisions/0008.

    Shipped ones go, the oldest first, when they are older than ``max_log_age_days``; from 90 % of
    ``max_total_log_size_mb`` on, until half is left; and while the file system has less than
    ``min_free_mb`` free. Unshipped ones are evicted only above 100 %, down to 90 %: quarantined
    ones first, then the oldest. Each leaves a tombstone and an audit entry. Receipts and delivered
    tombstones are folded when they are old: `agent.storage.folding`.

    Old: by the wall clock *and* by the time the watcher's first look gave plus the steady time
    since; so a clock that jumps while the agent runs, in either direction, makes nothing old. A
    clock that was wrong from the start is believed.

    `run` is the body of one thread; `wake` and `stop` may be called by any. ``free_space`` is for
    whoever begins a bundle.
    """

    def __init__(
        self, spool: Spool, config: CleanupConfig, audit: Audit, clock: Clock | None = None
    ) -> None:
        self._spool = spool
        self._config = config
        self._audit = audit
        self.free_space = FreeSpace(spool.root, config.min_free_mb)
        self._folding = Folding(spool)
        self._clock = clock or Clock()
        self._epoch = self._clock.wall() - self._clock.steady()
        self._wakeup = threading.Event()
        self._stopping = False
        self._statistics = SpaceStatistics()

    def reconfigure(self, config: CleanupConfig) -> None:
        """Go by other bounds, and look at once."""
        self._config = config
        self.free_space.min_free_mb = config.min_free_mb
        self.wake()

    def run(self) -> None:
        """Look at the spool when woken, and at intervals while it holds anything, until `stop`."""
        while True:
            self._wakeup.clear()
            if self._stopping:
                return
            holds_bundles = self.clean()
            self._wakeup.wait(self._config.cleanup_interval_sec if holds_bundles else None)

    def wake(self) -> None:
        """Look soon: a bundle was published."""
        self._wakeup.set()

    def stop(self) -> None:
        """End `run`."""
        self._stopping = True
        self._wakeup.set()

    def statistics(self) -> SpaceStatistics:
        """A snapshot."""
        return self._statistics

    def clean(self) -> bool:
        """Bring the spool within its bounds; whether any bundle is left (or might be)."""
        try:
            self._ensure_spool()
            left = self._within_bounds(self._spool.finished())
            self._fold()
        except OSError as error:
            self._note_failure(error)
            return True
        return bool(left)

    def _within_bounds(self, bundles: list[SpooledBundle]) -> dict[str, SpooledBundle]:
        limit = self._config.max_total_log_size_mb * MEGABYTE
        sweep = Sweep(bundles, self._remove)
        sweep.shrink([bundle for bundle in bundles if bundle.evicted])  # a killed run began it
        sweep.shrink([bundle for bundle in sweep.having(shipped=True) if self._is_old(bundle)])
        if sweep.total > limit * START_SHARE:
            sweep.shrink(sweep.having(shipped=True), limit * STOP_SHARE)
        missing = self.free_space.look().missing_bytes
        if missing:
            sweep.shrink(sweep.having(shipped=True), max(0, sweep.total - missing))
        if sweep.total > limit:
            sweep.shrink(sweep.having(shipped=False), limit * START_SHARE)
        return sweep.left

    def _is_old(self, bundle: SpooledBundle) -> bool:
        limit_sec = self._config.max_log_age_days * DAY_SEC
        return self._now() - bundle.time_ms / 1000 > limit_sec

    def _now(self) -> float:
        return min(self._clock.wall(), self._epoch + self._clock.steady())

    def _fold(self) -> None:
        folded = self._statistics.folded + self._folding.fold(self._now())
        self._statistics = replace(self._statistics, folded=folded)

    def _ensure_spool(self) -> None:
        if not self._spool.batches.is_dir():
            self._spool.prepare()
            recreated = self._statistics.spool_recreated + 1
            self._statistics = replace(self._statistics, spool_recreated=recreated)
            self._audit.record("spool_recreated", f"The spool {self._spool.root} had vanished")

    def _remove(self, bundle: SpooledBundle) -> bool:
        """Whether it worked; if not, the next look tries again."""
        try:
            if bundle.shipped or bundle.evicted:
                self._spool.remove(bundle, None)
                removed = self._statistics.removed + bundle.shipped
                self._statistics = replace(self._statistics, removed=removed)
            else:
                self._evict(bundle)
        except OSError as error:
            self._note_failure(error)
            return False
        return True

    def _evict(self, bundle: SpooledBundle) -> None:
        tombstone = self._tombstone(bundle)
        self._spool.remove(bundle, tombstone)
        self._statistics = replace(self._statistics, evicted=self._statistics.evicted + 1)
        message = f"Evicted {bundle.id} before it was shipped: the spool was full"
        self._audit.record(
            "eviction",
            message,
            bundle=bundle.id,
            anomaly=tombstone["anomaly"],
            incident=tombstone["incident"],
            size=bundle.size,
        )

    def _tombstone(self, bundle: SpooledBundle) -> Manifest:
        try:
            manifest = bundle.manifest()
        except (OSError, ValueError):  # an unreadable marker must not keep its archive for ever
            manifest = {}
        evicted_at = datetime.fromtimestamp(self._clock.wall(), timezone.utc).isoformat()
        return make_tombstone(bundle, manifest, evicted_at)

    def _note_failure(self, error: OSError) -> None:
        failed = self._statistics.failed + 1
        self._statistics = replace(self._statistics, failed=failed, last_failure=str(error))
        log.error("cleaning the spool failed: %s", error)
