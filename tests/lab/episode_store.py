"""Episodes on disk: one directory each, whole once its done marker is there.

    <ULID>/meta.json        what it is: class, seed, parameters, kernel, versions
    <ULID>/events.jsonl     what was done to the machine, and when
    <ULID>/labels.jsonl     the phases, each labelled fault or normal
    <ULID>/telemetry.jsonl  once a second, what the processes used
    <ULID>/smb.trace        every SMB command (`agent.events.trace`)
    <ULID>/bundles.jsonl    manifests of the bundles that the running agent made
    <ULID>/done.marker      written last

Times are nanoseconds of the watched host: ``mono`` is CLOCK_MONOTONIC, as in traces and manifests.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.events.trace import Trace, read_trace
from agent.storage.durable_file import publish_bytes, sync_directory
from agent.storage.ulid import new_ulid

META, DONE = "meta.json", "done.marker"
EVENTS, LABELS, BUNDLES = "events.jsonl", "labels.jsonl", "bundles.jsonl"
TELEMETRY, TRACE = "telemetry.jsonl", "smb.trace"

FAULT, NORMAL = "fault", "normal"

Row = dict[str, Any]


@dataclass(frozen=True)
class Phase:
    """A stretch of an episode; ``label`` is `FAULT` or `NORMAL`."""

    name: str
    begin_mono_ns: int
    end_mono_ns: int
    label: str


@dataclass(frozen=True)
class Episode:
    """A finished episode, read from disk when asked."""

    directory: Path
    meta: Row

    @property
    def name(self) -> str:
        """``<class>-<seed>``"""
        return f"{self.meta['class']}-{self.meta['seed']}"

    def phases(self) -> list[Phase]:
        """In order of time."""
        return [Phase(**row) for row in read_rows(self.directory / LABELS)]

    def bundles(self) -> list[Row]:
        """Manifests of the live agent's bundles, oldest first."""
        return read_rows(self.directory / BUNDLES)

    def trace(self) -> Trace:
        """Every SMB command of the episode."""
        return read_trace(self.directory / TRACE)


def begin_episode(root: Path, meta: Row) -> Path:
    """A new directory for an episode, with its meta.json; readers do not see it yet."""
    directory = root / new_ulid()
    directory.mkdir(parents=True)
    publish_bytes(directory / META, json.dumps(meta, indent=2, sort_keys=True).encode() + b"\n")
    return directory


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Publish ``rows`` as JSON lines."""
    publish_bytes(path, "".join(json.dumps(row) + "\n" for row in rows).encode())


def finish_episode(directory: Path) -> Episode:
    """Mark the episode as whole. Everything in it must have been published before."""
    sync_directory(directory)
    publish_bytes(directory / DONE, b"")
    return _read(directory)


def finished_episodes(root: Path) -> list[Episode]:
    """All whole episodes below ``root``, by name of their directory."""
    return [_read(marker.parent) for marker in sorted(root.glob(f"*/{DONE}"))]


def keep_episode(episode: Episode, root: Path) -> Path:
    """Copy what a replay needs to ``root``/<class>-<seed>, in place of what was there."""
    kept = root / episode.name
    shutil.rmtree(kept, ignore_errors=True)
    kept.mkdir(parents=True)
    for name in (META, EVENTS, LABELS, BUNDLES, TRACE, DONE):
        publish_bytes(kept / name, (episode.directory / name).read_bytes())
    return kept


def discard_episode(episode: Episode) -> None:
    """Remove it; readers never see a part of it."""
    (episode.directory / DONE).unlink()
    shutil.rmtree(episode.directory)


def read_rows(path: Path) -> list[Row]:
    """The JSON lines of ``path``."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def _read(directory: Path) -> Episode:
    return Episode(directory, json.loads((directory / META).read_text()))
