"""The bundles that are known to be bad: none is read again before it changes, each bears a mark."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Set
from dataclasses import replace

from agent.storage import durable_file
from agent.storage.spool import QUARANTINED, Spool, SpooledBundle
from shipper.faults import BundleFault
from shipper.moments import utc_now
from shipper.shipping.outcome import Outcome

# Inode, size and change time of a bundle's files.
Stamp = tuple[int, ...]

_log = logging.getLogger("aod-shipper")


class BadBundles:
    """Verdicts on bundles, each valid while the files have the stamp it was made for.

    The mark ``<id>.quarantined`` is the verdict, for others and after a restart: without it a
    bundle is tried anew. A spool that takes no mark is no reason to stop shipping: then it is kept
    in memory, and the mark tried again at the next look. Many threads, one for each bundle.
    """

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._unmarked: dict[str, tuple[Stamp, Outcome]] = {}

    def add(self, stamp: Stamp, verdict: Outcome) -> None:
        """Keep the verdict; ``stamp`` was taken before the files were read."""
        if verdict.fault is None:
            return
        mark = {
            "id": verdict.bundle_id,
            "reason": verdict.fault.message,
            "remedy": verdict.fault.remedy,
            "since": utc_now(),
            "stamp": list(stamp),
        }
        try:
            self._spool.mark_quarantined(verdict.bundle_id, mark)
            self._unmarked.pop(verdict.bundle_id, None)
        except OSError as error:
            if verdict.bundle_id not in self._unmarked:
                _log.warning("%s cannot be marked as bad: %s", verdict.bundle_id, error)
            self._unmarked[verdict.bundle_id] = stamp, verdict

    def find(self, bundle: SpooledBundle, stamp: Stamp) -> Outcome | None:
        """What was found of these very files."""
        if bundle.quarantined:
            return self._read(bundle, stamp)
        known, verdict = self._unmarked.get(bundle.id, (None, None))
        if verdict is None or known != stamp:
            return None
        self.add(stamp, verdict)
        return replace(verdict, known=True)

    def clear(self, bundle_id: str) -> None:
        """The bundle turned out to be fine: nothing and nobody says otherwise any more."""
        self._unmarked.pop(bundle_id, None)
        with contextlib.suppress(
            OSError
        ):  # of another user, or a sick disk: a receipt outweighs it
            self._spool.lift_quarantine(bundle_id)

    def keep_only(self, bundle_ids: Set[str]) -> None:
        """Forget every other bundle, and take its mark away. Raises OSError."""
        for bundle_id in (self._unmarked.keys() | self._spool.quarantined()) - bundle_ids:
            self.clear(bundle_id)

    def _read(self, bundle: SpooledBundle, stamp: Stamp) -> Outcome | None:
        try:
            mark = json.loads(durable_file.read_plain(self._spool.path(bundle.id, QUARANTINED)))
            if mark["stamp"] != list(stamp):
                return None
            fault = BundleFault(str(mark["reason"]), str(mark["remedy"]))
        except (OSError, ValueError, LookupError, TypeError, RecursionError):
            return None  # gone meanwhile, or none of ours: the bundle itself tells
        return Outcome(bundle.id, bundle.size, fault=fault, known=True)


def stamp_of(bundle: SpooledBundle) -> Stamp:
    """The stamp of the bundle's files as they are now."""
    stamp: Stamp = ()
    for path in (bundle.done, bundle.archive):
        with contextlib.suppress(OSError):
            status = path.lstat()
            stamp += (status.st_ino, status.st_size, status.st_ctime_ns)
    return stamp
