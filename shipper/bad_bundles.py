"""The bundles that are known to be bad: none is read again before it changes, each bears a mark."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Set

from agent.storage.spool import Spool, SpooledBundle
from shipper.outcome import Outcome

# Inode, size and change time of a bundle's files.
Stamp = tuple[int, ...]

_log = logging.getLogger("aod-shipper")


class BadBundles:
    """Verdicts on bundles by id, each valid while the files have the stamp it was made for.

    The mark ``<id>.quarantined`` in the spool tells others; nothing is decided by it here, so a
    bundle is read anew after a restart. A spool that takes no mark is no reason to stop shipping:
    the mark is tried again at the next look. One thread.
    """

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._verdicts: dict[str, tuple[Stamp, Outcome]] = {}
        self._unmarked: set[str] = set()

    def add(self, stamp: Stamp, verdict: Outcome) -> None:
        """Keep and mark the verdict; ``stamp`` was taken before the files were read."""
        self._verdicts[verdict.bundle_id] = stamp, verdict
        self._mark(stamp, verdict)

    def find(self, bundle_id: str, stamp: Stamp) -> Outcome | None:
        """What was found of these very files."""
        known, verdict = self._verdicts.get(bundle_id, (None, None))
        if verdict is None or known != stamp:
            return None
        if bundle_id in self._unmarked:
            self._mark(stamp, verdict)
        return verdict

    def clear(self, bundle_id: str) -> None:
        """The bundle turned out to be fine: nothing and nobody says otherwise any more."""
        self._verdicts.pop(bundle_id, None)
        self._unmarked.discard(bundle_id)
        with contextlib.suppress(
            OSError
        ):  # of another user, or a sick disk: a receipt outweighs it
            self._spool.lift_quarantine(bundle_id)

    def keep_only(self, bundle_ids: Set[str]) -> None:
        """Forget every other bundle, and take its mark away. Raises OSError."""
        for bundle_id in (self._verdicts.keys() | self._spool.quarantined()) - bundle_ids:
            self.clear(bundle_id)

    def _mark(self, stamp: Stamp, verdict: Outcome) -> None:
        if verdict.fault is None:
            return
        mark = {
            "id": verdict.bundle_id,
            "reason": verdict.fault.message,
            "remedy": verdict.fault.remedy,
            "stamp": list(stamp),
        }
        try:
            self._spool.mark_quarantined(verdict.bundle_id, mark)
            self._unmarked.discard(verdict.bundle_id)
        except OSError as error:
            if verdict.bundle_id not in self._unmarked:
                _log.warning("%s cannot be marked as bad: %s", verdict.bundle_id, error)
            self._unmarked.add(verdict.bundle_id)


def stamp_of(bundle: SpooledBundle) -> Stamp:
    """The stamp of the bundle's files as they are now."""
    stamp: Stamp = ()
    for path in (bundle.done, bundle.archive):
        with contextlib.suppress(OSError):
            status = path.lstat()
            stamp += (status.st_ino, status.st_size, status.st_ctime_ns)
    return stamp
