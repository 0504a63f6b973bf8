"""From an order to a published bundle: the staging directory, its draft, its end."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from agent.collection.bundle_sealer import BundleSealer
from agent.collection.evidence_files import no_aftermath, write_evidence, write_labels
from agent.collection.manifest import FIRST_MEMBER, Collected, draft_manifest, whole_manifest
from agent.collection.quick_action import QuickAction
from agent.collection.surroundings import HostFacts
from agent.configuration.schema import CollectionConfig
from agent.detection.anomaly import AnomalyAction
from agent.storage.durable_file import publish_bytes
from agent.storage.spool import STAGING_MODE, Spool, SpooledBundle


class BundleWriter:
    """Turns a staging directory into a published bundle. Blocks: not for an event loop."""

    def __init__(self, spool: Spool, host: HostFacts, sealer: BundleSealer) -> None:
        self._spool = spool
        self._host = host
        self._sealer = sealer

    def open_staging(self, order: AnomalyAction) -> Path:
        """A new empty directory for the order's files."""
        directory = self._spool.staging / order.id
        directory.mkdir(mode=STAGING_MODE)
        return directory

    def discard_staging(self, order: AnomalyAction) -> None:
        """Remove the order's directory, if it is there."""
        shutil.rmtree(self._spool.staging / order.id, ignore_errors=True)

    def draft(self, order: AnomalyAction, actions: Sequence[QuickAction]) -> None:
        """Write the evidence of the trigger, then a manifest: from then on the bundle is made even
        if the agent dies (`agent.collection.unfinished_bundles`). Raises OSError."""
        staging = self._spool.staging / order.id
        write_evidence(order, no_aftermath(order), staging)
        write_labels(order, {}, staging)
        manifest = draft_manifest(order, self._host, actions)
        publish_bytes(staging / FIRST_MEMBER, json.dumps(manifest, indent=2).encode() + b"\n")

    def publish(
        self, order: AnomalyAction, collected: Collected, config: CollectionConfig
    ) -> SpooledBundle:
        """Add evidence and manifest to the staging directory, pack it, publish the archive.

        Raises OSError (full disk, vanished spool); nothing of the bundle is then visible. The
        staging directory is the caller's to discard, after this.
        """
        staging = self._spool.staging / order.id
        aftermath = order.aftermath()
        write_evidence(order, aftermath, staging)
        moments = {"collection": collected.first_action_ns, "end": collected.ended_ns}
        write_labels(order, moments, staging)
        manifest = whole_manifest(order, self._host, aftermath, collected)
        return self._sealer.seal(staging, manifest, config)
