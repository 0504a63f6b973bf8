"""The bundles that are known to be bad, so that none is read again before it changes."""

from __future__ import annotations

import contextlib
from collections.abc import Collection

from agent.storage.spool import SpooledBundle
from shipper.outcome import Outcome

# Inode, size and change time of a bundle's files.
Stamp = tuple[int, ...]


class BadBundles:
    """Verdicts on bundles by id, each valid while the files have the stamp it was made for."""

    def __init__(self) -> None:
        self._verdicts: dict[str, tuple[Stamp, Outcome]] = {}

    def add(self, stamp: Stamp, verdict: Outcome) -> None:
        """Keep the verdict; ``stamp`` was taken before the files were read."""
        self._verdicts[verdict.bundle_id] = stamp, verdict

    def find(self, bundle_id: str, stamp: Stamp) -> Outcome | None:
        """What was found of these very files."""
        known, verdict = self._verdicts.get(bundle_id, (None, None))
        return verdict if known == stamp else None

    def keep_only(self, bundle_ids: Collection[str]) -> None:
        """Forget every other bundle."""
        self._verdicts = {key: self._verdicts[key] for key in self._verdicts.keys() & bundle_ids}


def stamp_of(bundle: SpooledBundle) -> Stamp:
    """The stamp of the bundle's files as they are now."""
    stamp: Stamp = ()
    for path in (bundle.done, bundle.archive):
        with contextlib.suppress(OSError):
            status = path.lstat()
            stamp += (status.st_ino, status.st_size, status.st_ctime_ns)
    return stamp
