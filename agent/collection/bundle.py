"""Makes a bundle of what was collected, and publishes it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from agent.collection.archive import FIRST_MEMBER, pack
from agent.collection.evidence_files import iso_time, write_evidence
from agent.collection.quick_actions import ActionResult
from agent.collection.surroundings import HostFacts
from agent.configuration.smb_commands import command_name
from agent.detection.anomaly import AnomalyAction
from agent.storage.durable_file import create_exclusive, temporary_beside
from agent.storage.spool import ARCHIVE, Manifest, Spool, SpooledBundle

MANIFEST_SCHEMA = 1


@dataclass(frozen=True)
class Collected:
    """The outcome of an order's actions: results, start (wall clock) and how long they took."""

    results: Sequence[ActionResult]
    started_ns: int
    duration_sec: float


class BundleWriter:
    """Turns a staging directory into a published bundle. Blocks: not for an event loop."""

    def __init__(self, spool: Spool, host: HostFacts, compression_level: int) -> None:
        self._spool = spool
        self._host = host
        self._level = compression_level

    def open_staging(self, action: AnomalyAction) -> Path:
        """A new empty directory for the order's files."""
        directory = self._spool.staging / action.id
        directory.mkdir(mode=0o750)
        return directory

    def discard_staging(self, action: AnomalyAction) -> None:
        """Remove the order's directory, if it is there."""
        shutil.rmtree(self._spool.staging / action.id, ignore_errors=True)

    def publish(self, action: AnomalyAction, collected: Collected) -> SpooledBundle:
        """Add evidence and manifest to the staging directory, pack it, publish the archive.

        Raises OSError (full disk, vanished spool); nothing of the bundle is then visible. The
        staging directory is the caller's to discard, after this.
        """
        staging = self._spool.staging / action.id
        write_evidence(action, staging)
        manifest = self._manifest(action, collected, staging)
        with os.fdopen(create_exclusive(staging / FIRST_MEMBER), "wb") as file:
            file.write(json.dumps(manifest, indent=2, sort_keys=True).encode() + b"\n")
        final = self._spool.path(action.id, ARCHIVE)
        temporary = temporary_beside(final)
        try:
            packed = pack(staging, temporary, self._level, action.wall_ns // 1_000_000_000)
            archive = {"file": final.name, "size": packed.size, "sha256": packed.sha256}
            return self._spool.publish(action.id, temporary, {**manifest, "archive": archive})
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise

    def _manifest(self, action: AnomalyAction, collected: Collected, staging: Path) -> Manifest:
        trigger = asdict(action.trigger)
        return {
            "schema": MANIFEST_SCHEMA,
            "id": action.id,
            "host": self._host.name,
            "kernel": self._host.kernel,
            "agent_version": self._host.agent_version,
            "anomaly": action.anomaly.name,
            "type": action.anomaly.type.value,
            "created": iso_time(action.wall_ns),
            "reason": action.trigger.reason,
            "trigger": {**trigger, "command": command_name(action.trigger.command)},
            "source": action.evidence.source,
            "counters": action.evidence.counters,
            "events": len(action.evidence.events),
            "actions": [asdict(result) for result in collected.results],
            "collection": {
                "started": iso_time(collected.started_ns),
                "duration_sec": round(collected.duration_sec, 3),
            },
            "files": [
                {"name": path.name, "size": path.stat().st_size}
                for path in sorted(staging.iterdir())
            ],
        }
