"""Bundles that an agent began and did not live to publish: finished at the next start."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from agent.collection.bundle_cleaner import BundleCleaner
from agent.collection.bundle_sealer import BundleSealer
from agent.collection.evidence_files import EVIDENCE_FILES, iso_time
from agent.collection.manifest import FIRST_MEMBER, Manifest
from agent.collection.surroundings import Surroundings
from agent.configuration.schema import CollectionConfig
from agent.storage.durable_file import TEMPORARY_SUFFIX, UnsafeFileError, read_plain
from agent.storage.spool import Spool
from agent.storage.spool_listing import some_of


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
        places = surroundings
        cleaner = BundleCleaner(places.roots, places.host.name, places.pseudonym_map)
        self._sealer = BundleSealer(spool, cleaner)
        self._config = config

    def recover(self) -> Iterator[Recovered]:
        """Bring every staging directory to its end. Raises OSError when they cannot be listed."""
        for staging in self._spool.staging_directories():
            try:
                yield self._recover(staging)
            except Exception as error:  # whatever lies there, the agent has to start
                reason = f"{type(error).__name__}: {error}"
                yield Recovered(staging.name, "kept", f"it cannot be finished now: {reason}")

    def _recover(self, staging: Path) -> Recovered:
        bundle_id = staging.name
        if self._spool.was_made(bundle_id):
            shutil.rmtree(staging)
            return Recovered(bundle_id, "discarded", "its bundle is there")
        draft = _draft(staging)
        if draft is None:
            shutil.rmtree(staging)
            return Recovered(bundle_id, "discarded", "it holds no whole evidence yet")
        self._surroundings.room_for_bundle(0)
        foreign = _remove_foreign(staging, self._own_names(draft))
        self._sealer.seal(staging, _completed(draft, staging), self._config())
        shutil.rmtree(staging)
        left_out = f"; left out, as none of the agent's: {some_of(foreign)}" if foreign else ""
        return Recovered(bundle_id, "finished", f"its evidence is whole{left_out}")

    def _own_names(self, draft: Manifest) -> set[str]:
        """An action that wrote parts only has no file in the draft of a second attempt."""
        named = {action.get("file") for action in draft["actions"]}
        outputs = {action.output for action in self._surroundings.actions}
        return {FIRST_MEMBER, *EVIDENCE_FILES, *outputs, *named - {None}}


def _draft(staging: Path) -> Manifest | None:
    """The manifest that says that the evidence is there; None when there is none of this bundle."""
    try:
        manifest = json.loads(read_plain(staging / FIRST_MEMBER))
    except (FileNotFoundError, UnsafeFileError, ValueError):
        return None
    return manifest if _is_draft_of(staging.name, manifest) else None


def _is_draft_of(bundle_id: str, manifest: object) -> bool:
    if not isinstance(manifest, dict) or manifest.get("id") != bundle_id:
        return False
    actions = manifest.get("actions")
    return isinstance(actions, list) and all(
        isinstance(action, dict) and isinstance(action.get("file", ""), str | None)
        for action in actions
    )


def _completed(draft: Manifest, staging: Path) -> Manifest:
    there = {path.name for path in staging.iterdir()}
    actions = [
        action if action.get("file") in there else {**action, "file": None}
        for action in draft["actions"]
    ]
    now = iso_time(time.time_ns())
    return {**draft, "interrupted": True, "actions": actions, "recovered": now}


def _remove_foreign(staging: Path, own: set[str]) -> list[str]:
    """Remove all but the plain files called as one of ``own`` or a part of it; what was removed,
    without temporaries."""
    with os.scandir(staging) as entries:
        foreign = [entry for entry in entries if _output_of(entry.name) not in own or _odd(entry)]
    for entry in foreign:
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry)
        else:
            Path(entry).unlink()
    return [one.name for one in foreign if not one.name.endswith(TEMPORARY_SUFFIX)]


def _output_of(name: str) -> str:
    """The file that ``name`` was to become a part of (``stacks.log.7``), or is."""
    return re.sub(r"\.[0-9]+\Z", "", name)


def _odd(entry: os.DirEntry[str]) -> bool:
    """A link, also a hard one, a directory, a pipe or a device."""
    return (
        not entry.is_file(follow_symlinks=False) or entry.stat(follow_symlinks=False).st_nlink > 1
    )
