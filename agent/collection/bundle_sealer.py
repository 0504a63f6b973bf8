"""The last steps of every bundle: its directory becomes an archive, the archive becomes visible."""

from __future__ import annotations

import json
from pathlib import Path

from agent.collection.bundle_cleaner import BundleCleaner
from agent.collection.manifest import FIRST_MEMBER, Manifest
from agent.configuration.schema import CollectionConfig
from agent.storage.durable_file import temporary_beside, whole_file
from agent.storage.spool import ARCHIVE, Spool, SpooledBundle
from agent.storage.ulid import ulid_time_ms


class BundleSealer:
    """Cleans, packs and publishes staging directories; one at a time, in any thread."""

    def __init__(self, spool: Spool, cleaner: BundleCleaner) -> None:
        self._spool = spool
        self._cleaner = cleaner

    def seal(self, staging: Path, manifest: Manifest, config: CollectionConfig) -> SpooledBundle:
        """Publish the files in ``staging``, which is named after the bundle, with ``manifest``.

        Raises OSError or `PseudonymMapError`; nothing of the bundle is then visible, and
        ``staging`` is still there.
        """
        # It brings OpenSSL: 6 MB resident that an agent without incidents does without.
        from agent.collection.archive import pack

        bundle_id = staging.name
        told = self._cleaner.clean(staging, manifest, config)
        with whole_file(staging / FIRST_MEMBER) as file:
            file.write(json.dumps(told, indent=2).encode() + b"\n")
        final = self._spool.path(bundle_id, ARCHIVE)
        temporary = temporary_beside(final)
        try:
            time_sec = ulid_time_ms(bundle_id) // 1_000
            level, threads = config.compression_level, config.compression_threads
            packed = pack(staging, temporary, level, time_sec, threads)
            archive = {"file": final.name, "size": packed.size, "sha256": packed.sha256}
            return self._spool.publish(bundle_id, temporary, {**told, "archive": archive})
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
