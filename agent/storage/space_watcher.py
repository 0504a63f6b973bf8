"""The SpaceWatcher: keeps the spool within its bounds of age and size."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timezone

from agent.configuration.schema import CleanupConfig
from agent.service.audit import Audit
from agent.storage.spool import Manifest, Spool, SpooledBundle

log = logging.getLogger("aod.space")

START_SHARE = 0.9
STOP_SHARE = 0.5
MEGABYTE = 1 << 20
DAY_SEC = 86_400.0


@dataclass(frozen=True)
class Clock:
    """Seconds since the epoch, and seconds that never jump."""

    wall: Callable[[], float] = time.time
    steady: Callable[[], float] = time.monotonic


@dataclass(frozen=True)
class SpaceStatistics:
    """Since the start: bundles removed after and before shipping, and what went wrong."""

    removed: int = 0
    evicted: int = 0
    spool_recreated: int = 0
    failed: int = 0
    last_failure: str = ""


class SpaceWatcher:
    """Removes finished bundles that are too old, or the first to go when they are too many.

    Too old: older than ``max_log_age_days`` by the wall clock *and* by the time the watcher's
    first look gave plus the steady time since; so a clock that jumps while the agent runs, in
    either direction, makes no bundle old. A clock that was wrong from the start is believed.
    Too many: from 90 % of ``max_total_log_size_mb`` on, down to 50 %; shipped bundles first, then
    the oldest. What goes unshipped leaves a tombstone and an audit entry. Receipts and
    tombstones stay: they are the counts.

    `run` is the body of one thread; `wake` and `stop` may be called by any.
    """

    def __init__(
        self, spool: Spool, config: CleanupConfig, audit: Audit, clock: Clock | None = None
    ) -> None:
        self._spool = spool
        self._config = config
        self._audit = audit
        self._clock = clock or Clock()
        self._epoch = self._clock.wall() - self._clock.steady()
        self._wakeup = threading.Event()
        self._stopping = False
        self._statistics = SpaceStatistics()

    def reconfigure(self, config: CleanupConfig) -> None:
        """Go by other bounds, and look at once."""
        self._config = config
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
            bundles = self._without_old(self._spool.finished())
        except OSError as error:
            self._note_failure(error)
            return True
        return bool(self._without_excess(bundles))

    def _ensure_spool(self) -> None:
        if not self._spool.batches.is_dir():
            self._spool.prepare()
            recreated = self._statistics.spool_recreated + 1
            self._statistics = replace(self._statistics, spool_recreated=recreated)
            self._audit.record("spool_recreated", f"The spool {self._spool.root} had vanished")

    def _without_old(self, bundles: list[SpooledBundle]) -> list[SpooledBundle]:
        limit_sec = self._config.max_log_age_days * DAY_SEC
        now = min(self._clock.wall(), self._epoch + self._clock.steady())
        return [
            bundle
            for bundle in bundles
            if now - bundle.time_ms / 1000 <= limit_sec or not self._remove(bundle, "age")
        ]

    def _without_excess(self, bundles: list[SpooledBundle]) -> list[SpooledBundle]:
        limit = self._config.max_total_log_size_mb * MEGABYTE
        total = sum(bundle.size for bundle in bundles)
        if total <= limit * START_SHARE:
            return bundles
        left = []
        for bundle in sorted(bundles, key=lambda bundle: (not bundle.shipped, bundle.id)):
            if total > limit * STOP_SHARE and self._remove(bundle, "size"):
                total -= bundle.size
            else:
                left.append(bundle)
        return left

    def _remove(self, bundle: SpooledBundle, reason: str) -> bool:
        """Whether it worked; if not, the next look tries again."""
        try:
            if bundle.shipped:
                self._spool.remove(bundle, None)
                self._statistics = replace(self._statistics, removed=self._statistics.removed + 1)
            else:
                self._evict(bundle, reason)
        except OSError as error:
            self._note_failure(error)
            return False
        return True

    def _evict(self, bundle: SpooledBundle, reason: str) -> None:
        tombstone = self._tombstone(bundle, reason)
        self._spool.remove(bundle, tombstone)
        self._statistics = replace(self._statistics, evicted=self._statistics.evicted + 1)
        message = f"Evicted {bundle.id} before it was shipped, for its {reason}"
        self._audit.record("eviction", message, bundle=bundle.id, **tombstone)

    def _tombstone(self, bundle: SpooledBundle, reason: str) -> Manifest:
        try:
            manifest = bundle.manifest()
        except (OSError, ValueError):  # an unreadable marker must not keep its archive for ever
            manifest = {}
        return {
            "id": bundle.id,
            "reason": reason,
            "size": bundle.size,
            "host": manifest.get("host"),
            "anomaly": manifest.get("anomaly"),
            "evicted_at": datetime.fromtimestamp(self._clock.wall(), timezone.utc).isoformat(),
        }

    def _note_failure(self, error: OSError) -> None:
        failed = self._statistics.failed + 1
        self._statistics = replace(self._statistics, failed=failed, last_failure=str(error))
        log.error("cleaning the spool failed: %s", error)
