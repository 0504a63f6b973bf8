"""The shipper's last word on what hinders it, kept in the spool for ``aod-shipper status``.

Only a note for people: nothing is decided by it, and losing it loses nothing.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from agent.storage import durable_file

# Hidden, so that it is no part of the spool; there, because the shipper may write nowhere else.
STATE_FILE = ".shipper-state.json"


@dataclass(frozen=True)
class FaultNote:
    """One fault: of the whole round, or of the bundle ``bundle``. ``since`` is UTC, ISO 8601."""

    kind: str
    message: str
    remedy: str
    since: str
    bundle: str | None = None

    @property
    def text(self) -> str:
        """The fault in one line."""
        return f"{self.bundle} stays: {self.message}" if self.bundle else self.message

    def says_the_same(self, other: FaultNote) -> bool:
        """Whether only ``since`` differs."""
        return (self.kind, self.message, self.bundle) == (other.kind, other.message, other.bundle)


class StateFile:
    """Reads and writes the notes in ``directory`` (the spool's ``batches``)."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / STATE_FILE

    def read(self) -> list[FaultNote]:
        """The notes; none when there is no file or it is not one of ours."""
        try:
            faults = json.loads(durable_file.read_plain(self._path))["faults"]
            return [_note(fault) for fault in faults]
        except (OSError, ValueError, LookupError, TypeError, RecursionError):
            return []

    def write(self, notes: list[FaultNote]) -> None:
        """Replace the notes, keeping ``since`` of those that say the same; OSError if it fails."""
        known = self.read()
        kept = [next((old for old in known if old.says_the_same(note)), note) for note in notes]
        if kept != known:
            content = {"faults": [asdict(note) for note in kept]}
            durable_file.publish_bytes(self._path, json.dumps(content, indent=2).encode() + b"\n")


def utc_now() -> str:
    """This moment in ISO 8601, UTC, seconds."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _note(fault: dict[str, Any]) -> FaultNote:
    texts = {name: str(fault[name]) for name in ("kind", "message", "remedy", "since")}
    bundle = fault["bundle"]
    return FaultNote(**texts, bundle=None if bundle is None else str(bundle))
