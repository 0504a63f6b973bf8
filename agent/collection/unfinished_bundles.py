"""Bundles that an agent began and did not live to publish: finished at the next start."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from agent.collection.bundle_cleaner import BundleCleaner
from agent.collection.bundle_sealer import BundleSealer
from agent.collection.evidence_files import iso_time
from agent.collection.manifest import FIRST_MEMBER, Manifest
from agent.collection.surroundings import Surroundings
from agent.configuration.schema import CollectionConfig
from agent.redaction.pseudonyms import PseudonymMapError
from agent.storage.durable_file import TEMPORARY_SUFFIX, read_plain
from agent.storage.spool import Spool


@dataclass(frozen=True)
class Recovered:
    """What became of one staging directory: ``finished``, ``discarded`` or ``kept`` (the next
    start tries again), and why."""

    bundle_id: str
    fate: str
    why: str


class UnfinishedBundles:
    """The staging directories of a killed run. Use it before the first collection."""

    def __init__(
        self, spool: Spool, surroundings: Surroundings, config: Callable[[], CollectionConfig]
    ) -> None:
        self._spool = spool
        self._surroundings = surroundings
        cleaner = BundleCleaner(surroundings.roots, surroundings.pseudonym_map)
        self._sealer = BundleSealer(spool, cleaner)
        self._config = config

    def recover(self) -> Iterator[Recovered]:
        """Bring every staging directory to its end. Raises OSError when they cannot be listed."""
        for staging in self._spool.staging_directories():
            try:
                yield self._recover(staging)
            except (OSError, PseudonymMapError) as error:
                yield Recovered(staging.name, "kept", f"it cannot be finished now: {error}")

    def _recover(self, staging: Path) -> Recovered:
        bundle_id = staging.name
        if self._spool.was_made(bundle_id):
            shutil.rmtree(staging)
            return Recovered(bundle_id, "discarded", "its bundle is there")
        draft = _draft(staging)
        if draft is None:
            shutil.rmtree(staging)
            return Recovered(bundle_id, "discarded", "it holds no whole evidence yet")
        self._surroundings.room_for_bundle()
        _remove_temporaries(staging)
        self._sealer.seal(staging, _completed(draft, staging), self._config())
        shutil.rmtree(staging)
        return Recovered(bundle_id, "finished", "its evidence is whole")


def _draft(staging: Path) -> Manifest | None:
    """The manifest that says that the evidence is there; None when there is none of this bundle."""
    try:
        manifest = json.loads(read_plain(staging / FIRST_MEMBER))
    except (FileNotFoundError, ValueError):
        return None
    if not isinstance(manifest, dict) or manifest.get("id") != staging.name:
        return None
    return manifest


def _completed(draft: Manifest, staging: Path) -> Manifest:
    actions = [
        {**action, "file": None} if not (staging / str(action["file"])).exists() else action
        for action in draft["actions"]
    ]
    return {**draft, "actions": actions, "recovered": iso_time(time.time_ns())}


def _remove_temporaries(staging: Path) -> None:
    for path in staging.glob(f".*{TEMPORARY_SUFFIX}"):
        path.unlink()
