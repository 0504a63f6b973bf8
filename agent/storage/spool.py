"""The spool: a directory of finished bundles, and the contract between agent and shipper.

A bundle is ``<id>.tar.zst``, then ``<id>.done`` (its manifest, JSON), written last; then, from the
shipper, ``<id>.shipped`` (its receipt), or ``<id>.quarantined`` while it is not what its manifest
says. ``<id>.evicted`` is the tombstone of a bundle that had to go before it was shipped, and
``<id>.evicted-shipped``, from the shipper, tells that the tombstone is in the store. ``<id>`` is a
ULID. ``history.json`` beside the directory counts what was folded away. There is no other state:
whatever dies, whenever, a restart finds either no bundle or a whole one.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.storage import durable_file
from agent.storage.history import HistoryFile
from agent.storage.spool_counts import SpoolCounts, count
from agent.storage.spool_listing import ids_by_suffix, is_plain_file, plain_files
from agent.storage.ulid import is_ulid, ulid_time_ms

ARCHIVE = ".tar.zst"
DONE = ".done"
SHIPPED = ".shipped"
UPLOADING = ".uploading"
QUARANTINED = ".quarantined"
EVICTED = ".evicted"
EVICTED_SHIPPED = ".evicted-shipped"
HISTORY_FILE = "history.json"

# Sticky and setgid: the shipper's user may add receipts, but not remove what the agent wrote.
BATCHES_MODE = 0o3770
PRIVATE_MODE = 0o750
# What is collected is not yet without secrets: for the agent alone.
STAGING_MODE = 0o700

NO_SPACE = (errno.ENOSPC, errno.EDQUOT)

Manifest = dict[str, Any]


def as_bytes(manifest: Manifest) -> bytes:
    """The one form in which manifests, receipts and tombstones lie in files and objects."""
    return json.dumps(manifest, indent=2).encode() + b"\n"


class ReadOnlySpoolError(OSError):
    """The spool lies on a file system that this process sees read-only."""

    def __init__(self, root: Path) -> None:
        super().__init__(
            f"{root} is read-only for this process. A service needs ReadWritePaths={root} "
            "(docs/configuration.md, 'Another spool'), and a restart when the directory was "
            "removed while it ran"
        )


@dataclass(frozen=True, slots=True)
class SpooledBundle:
    """One finished bundle in ``batches``: its done-marker exists. ``size`` is the archive's, in
    bytes. Small, because a backlog has thousands.

    ``evicted``: it has a tombstone; what is left of it is there because a run was killed.
    """

    id: str
    batches: Path
    size: int
    shipped: bool
    quarantined: bool = False
    evicted: bool = False

    @property
    def archive(self) -> Path:
        """The bundle itself."""
        return self.batches / f"{self.id}{ARCHIVE}"

    @property
    def done(self) -> Path:
        """Its marker, the manifest."""
        return self.batches / f"{self.id}{DONE}"

    @property
    def time_ms(self) -> int:
        """Wall-clock milliseconds of the trigger."""
        return ulid_time_ms(self.id)

    def manifest(self) -> Manifest:
        """The done-marker's content. Raises OSError or ValueError when it cannot be read."""
        manifest = json.loads(durable_file.read_plain(self.done))
        if not isinstance(manifest, dict):
            raise ValueError(f"{self.done}: not a JSON object")
        return manifest


class Spool:
    """The spool below ``root`` (the configuration's ``aod_output_dir``). Safe for many threads."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.batches = root / "batches"
        self.staging = root / "staging"
        self.history = HistoryFile(root / HISTORY_FILE)

    def prepare(self) -> None:
        """Make the directories that are missing, and open our own `batches` to the shipper.

        Raises OSError; `ReadOnlySpoolError` when nothing can be written there.
        """
        try:
            for directory in (self.root, self.staging, self.batches):
                durable_file.make_directory(directory, PRIVATE_MODE)
            if stat.S_IMODE(self.staging.stat().st_mode) != STAGING_MODE:
                self.staging.chmod(STAGING_MODE)
            if os.statvfs(self.batches).f_flag & os.ST_RDONLY:
                raise ReadOnlySpoolError(self.root)
            self._open_to_shipper()
        except OSError as error:
            if error.errno == errno.EROFS:
                raise ReadOnlySpoolError(self.root) from error
            raise

    def _open_to_shipper(self) -> None:
        """Also when the directory is there: a run may have been killed before it got here."""
        status = self.batches.stat()
        if status.st_uid == os.geteuid() and stat.S_IMODE(status.st_mode) != BATCHES_MODE:
            self.batches.chmod(BATCHES_MODE)

    def is_there(self) -> bool:
        """Whether the directories exist."""
        return self.staging.is_dir() and self.batches.is_dir()

    def path(self, bundle_id: str, suffix: str) -> Path:
        """Where the part ``suffix`` of a bundle lies; refuses names that are no ULID."""
        if not is_ulid(bundle_id):
            raise ValueError(f"not a bundle id: {bundle_id!r}")
        return self.batches / f"{bundle_id}{suffix}"

    def publish(self, bundle_id: str, archive: Path, manifest: Manifest) -> SpooledBundle:
        """Move the finished file ``archive`` (in `batches`) into place, then write its marker.

        Raises OSError; then neither is there, whichever step failed.
        """
        final, done = self.path(bundle_id, ARCHIVE), self.path(bundle_id, DONE)
        data = as_bytes(manifest)
        try:
            # Once the marker is there, the archive may be shipped and cleaned up at any moment.
            size = archive.lstat().st_size
            durable_file.publish_file(archive, final)
            durable_file.publish_bytes(done, data)
        except BaseException:
            self._withdraw(archive, done, final)
            raise
        return SpooledBundle(bundle_id, self.batches, size, shipped=False)

    def _withdraw(self, temporary: Path, done: Path, final: Path) -> None:
        """As in `remove`, no marker may outlive its archive, also when the power fails now."""
        temporary.unlink(missing_ok=True)
        done.unlink(missing_ok=True)
        with suppress(OSError):  # what failed is known already, and the archive must go
            durable_file.sync_directory(self.batches)
        final.unlink(missing_ok=True)

    def finished(self) -> list[SpooledBundle]:
        """Bundles whose done-marker and archive exist, oldest first."""
        names = self._names()
        flags = [names.get(suffix, set()) for suffix in (SHIPPED, QUARANTINED, EVICTED)]
        return [
            bundle
            for bundle_id in sorted(names.get(DONE, set()) & names.get(ARCHIVE, set()))
            if (bundle := self._bundle(bundle_id, *(bundle_id in ids for ids in flags)))
        ]

    def bundle(self, bundle_id: str) -> SpooledBundle | None:
        """A finished bundle as it is now; None when it is not finished, or gone."""
        done, *flags = (
            is_plain_file(self.path(bundle_id, suffix))
            for suffix in (DONE, SHIPPED, QUARANTINED, EVICTED)
        )
        return self._bundle(bundle_id, *flags) if done else None

    def pending_ids(self) -> set[str]:
        """Ids of the finished bundles without a receipt, from the names alone."""
        names = self._names()
        return names.get(DONE, set()) & names.get(ARCHIVE, set()) - names.get(SHIPPED, set())

    def pending(self) -> list[SpooledBundle]:
        """Finished bundles without a receipt, oldest first."""
        return [bundle for bundle in self.finished() if not bundle.shipped]

    def write_receipt(self, bundle_id: str, receipt: Manifest) -> None:
        """Record that the bundle is in the store; from then on it may be cleaned up."""
        durable_file.publish_bytes(self.path(bundle_id, SHIPPED), as_bytes(receipt))

    def mark_quarantined(self, bundle_id: str, mark: Manifest) -> None:
        """Record that the bundle cannot be shipped as it is."""
        durable_file.publish_bytes(self.path(bundle_id, QUARANTINED), as_bytes(mark))

    def lift_quarantine(self, bundle_id: str) -> None:
        """Take the mark back, if there is one."""
        self.path(bundle_id, QUARANTINED).unlink(missing_ok=True)

    def quarantined(self) -> set[str]:
        """Ids with a mark, whether their bundle is still there or not."""
        return self._names().get(QUARANTINED, set())

    def undelivered_tombstones(self) -> list[str]:
        """Ids of evicted bundles of which the store does not know, oldest first."""
        names = self._names()
        known = names.get(EVICTED_SHIPPED, set()) | names.get(SHIPPED, set())
        return sorted(names.get(EVICTED, set()) - known)

    def note_tombstone_delivered(self, bundle_id: str, receipt: Manifest) -> None:
        """Record that the tombstone is in the store."""
        durable_file.publish_bytes(self.path(bundle_id, EVICTED_SHIPPED), as_bytes(receipt))

    def is_made_or_begun(self, bundle_id: str) -> bool:
        """Whether the bundle was ever finished, or still waits in staging for a start that can."""
        return self.was_made(bundle_id) or (self.staging / bundle_id).is_dir()

    def was_made(self, bundle_id: str) -> bool:
        """Whether the bundle was ever finished, wherever it is by now; not to be asked of one that
        may have been folded away (`agent.storage.folding`)."""
        return any(self.path(bundle_id, suffix).exists() for suffix in (DONE, SHIPPED, EVICTED))

    def remove(self, bundle: SpooledBundle, tombstone: Manifest | None) -> None:
        """Delete a bundle; one with neither receipt nor tombstone requires ``tombstone``.

        The marker goes first, so that nobody sees a marker without its archive; the receipt or
        the tombstone stays and keeps the counts true. A tombstone is never written anew: it may
        be in the store already.
        """
        if tombstone is not None and not bundle.evicted:
            self._bury(bundle, tombstone)
        elif not bundle.shipped and not bundle.evicted:
            raise ValueError(f"bundle {bundle.id} is not shipped: its removal needs a tombstone")
        elif bundle.shipped and not self.path(bundle.id, SHIPPED).exists():
            raise OSError(f"bundle {bundle.id} is to be shipped again: its receipt was taken back")
        bundle.done.unlink(missing_ok=True)
        durable_file.sync_directory(self.batches)
        bundle.archive.unlink(missing_ok=True)

    def _bury(self, bundle: SpooledBundle, tombstone: Manifest) -> None:
        grave = self.path(bundle.id, EVICTED)
        try:
            durable_file.publish_bytes(grave, as_bytes(tombstone))
        except OSError as error:
            if error.errno not in NO_SPACE:
                raise
            # A full disk must not keep its own cleaning from working: the marker needs no new
            # space to become the tombstone.
            bundle.done.replace(grave)

    def counts(self) -> SpoolCounts:
        """Every bundle ever made, by fate, from the files alone. Does not raise OSError.

        The bundles are looked at before the names: one that meets its fate meanwhile had left a
        receipt or a tombstone before it went, and so is not missed.
        """
        try:
            while True:
                history, finished, names = self.history.read(), self.finished(), self._names()
                if self.history.read() == history:  # else it was folding meanwhile
                    tombstones = names.get(EVICTED, set())
                    return count(finished, names.get(SHIPPED, set()), tombstones, history)
        except OSError as error:
            return SpoolCounts(fault=str(error))

    def recover(self) -> list[str]:
        """Remove what a killed run left unfinished in `batches`; names of what went, for the audit.

        Temporaries, and archives whose marker was never written or is already gone. Call it before
        the first collection, never beside one. The shipper may be at work: what it is writing
        stays. So does what is not called as the agent calls its own. Staging directories are not
        touched: what they hold may still become a bundle.
        """
        names = self._names()
        leftovers = [
            self.path(i, ARCHIVE) for i in names.get(ARCHIVE, set()) - names.get(DONE, set())
        ]
        leftovers += self._own_temporaries()
        for path in leftovers:
            path.unlink(missing_ok=True)
        return sorted(path.name for path in leftovers)

    def staging_directories(self) -> list[Path]:
        """Those of bundles under way, or of a run that was killed; oldest first."""
        with os.scandir(self.staging) as entries:
            return sorted(
                self.staging / entry.name
                for entry in entries
                if is_ulid(entry.name) and entry.is_dir(follow_symlinks=False)
            )

    def foreign_in_staging(self) -> list[str]:
        """Names of what is there and no such directory; nothing of the agent's."""
        own = {path.name for path in self.staging_directories()}
        return sorted({path.name for path in self.staging.iterdir()} - own)

    def _own_temporaries(self) -> list[Path]:
        """Temporaries of the agent's writers."""
        return [
            self.batches / name
            for name in self._plain_files()
            if name.startswith(".")
            and is_ulid(name[1:27])
            and name[27:].startswith((f"{ARCHIVE}.", f"{DONE}.", f"{EVICTED}."))
            and name.endswith(durable_file.TEMPORARY_SUFFIX)
        ]

    def _bundle(
        self, bundle_id: str, shipped: bool, quarantined: bool, evicted: bool
    ) -> SpooledBundle | None:
        try:
            size = os.lstat(f"{self.batches}/{bundle_id}{ARCHIVE}").st_size
        except FileNotFoundError:  # cleaned up between the listing and here
            return None
        return SpooledBundle(bundle_id, self.batches, size, shipped, quarantined, evicted)

    def _names(self) -> dict[str, set[str]]:
        """Bundle ids by suffix; a spool that vanished is an empty one."""
        return ids_by_suffix(self.batches)

    def _plain_files(self) -> Iterator[str]:
        return plain_files(self.batches)
