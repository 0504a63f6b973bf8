"""Makes a bundle of what was collected, and publishes it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from agent.collection.archive import FIRST_MEMBER, pack
from agent.collection.evidence_files import iso_time, without_bells, write_evidence
from agent.collection.quick_actions import ActionResult
from agent.collection.surroundings import HostFacts
from agent.configuration.smb_commands import command_name
from agent.detection.anomaly import Aftermath, AnomalyAction
from agent.storage.durable_file import create_exclusive, temporary_beside
from agent.storage.spool import ARCHIVE, Manifest, Spool, SpooledBundle

MANIFEST_SCHEMA = 1


@dataclass(frozen=True)
class Collected:
    """The outcome of an order's actions: results, start and how long they took.

    ``started_ns`` is by the wall clock, ``first_action_ns`` CLOCK_MONOTONIC when the first one was
    started.
    """

    results: Sequence[ActionResult]
    started_ns: int
    first_action_ns: int
    duration_sec: float


class BundleWriter:
    """Turns a staging directory into a published bundle. Blocks: not for an event loop."""

    def __init__(self, spool: Spool, host: HostFacts) -> None:
        self._spool = spool
        self._host = host

    def open_staging(self, action: AnomalyAction) -> Path:
        """A new empty directory for the order's files."""
        directory = self._spool.staging / action.id
        directory.mkdir(mode=0o750)
        return directory

    def discard_staging(self, action: AnomalyAction) -> None:
        """Remove the order's directory, if it is there."""
        shutil.rmtree(self._spool.staging / action.id, ignore_errors=True)

    def publish(self, action: AnomalyAction, collected: Collected, level: int) -> SpooledBundle:
        """Add evidence and manifest to the staging directory, pack it with zstd's ``level``,
        publish the archive.

        Raises OSError (full disk, vanished spool); nothing of the bundle is then visible. The
        staging directory is the caller's to discard, after this.
        """
        staging = self._spool.staging / action.id
        aftermath = action.aftermath()
        write_evidence(action, aftermath, staging)
        manifest = self._manifest(action, aftermath, collected, staging)
        with os.fdopen(create_exclusive(staging / FIRST_MEMBER), "wb") as file:
            file.write(json.dumps(manifest, indent=2, sort_keys=True).encode() + b"\n")
        final = self._spool.path(action.id, ARCHIVE)
        temporary = temporary_beside(final)
        try:
            packed = pack(staging, temporary, level, action.wall_ns // 1_000_000_000)
            archive = {"file": final.name, "size": packed.size, "sha256": packed.sha256}
            return self._spool.publish(action.id, temporary, {**manifest, "archive": archive})
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise

    def _manifest(
        self, action: AnomalyAction, aftermath: Aftermath, collected: Collected, staging: Path
    ) -> Manifest:
        trigger = asdict(action.trigger)
        after = len(without_bells(aftermath.events))
        incident, offset_ns = action.incident, action.evidence.wall_offset_ns
        return {
            "schema": MANIFEST_SCHEMA,
            "id": action.id,
            "host": self._host.name,
            "kernel": self._host.kernel,
            "agent_version": self._host.agent_version,
            "anomaly": action.anomaly.name,
            "type": action.anomaly.type,
            "created": iso_time(action.wall_ns),
            "reason": action.trigger.reason,
            "trigger": {**trigger, "command": _command(action)},
            "incident": {
                "id": incident.incident_id,
                "bundle": incident.number,
                "cause": incident.cause,
                "opened": iso_time(incident.opened_ns + offset_ns),
            },
            "source": action.evidence.source,
            "counters": action.evidence.counters,
            "events": len(without_bells(action.evidence.events)) + after,
            "events_after": after,
            "actions": [asdict(result) for result in collected.results],
            "collection": {
                "started": iso_time(collected.started_ns),
                "duration_sec": round(collected.duration_sec, 3),
                "delay_ms": _delay_ms(action, collected),
            },
            "files": [
                {"name": path.name, "size": path.stat().st_size}
                for path in sorted(staging.iterdir())
            ],
        }


def _delay_ms(action: AnomalyAction, collected: Collected) -> float | None:
    """From the trigger to the first action; None where they are of different clocks."""
    if not action.live:
        return None
    return round((collected.first_action_ns - action.trigger.time_ns) / 1_000_000, 1)


def _command(action: AnomalyAction) -> str | None:
    number = action.trigger.command
    return None if number is None else command_name(number)
