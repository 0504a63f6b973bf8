"""The victim's own account, which outlives it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


class Report:
    """What a victim says of itself, one JSON object a line, in a file beside the spool.

    A promise is said when the agent would rely on it, and must hold from then on. ``tried`` ends
    the part of the run in which faults are injected.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def __enter__(self) -> Report:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    def promise(self, bundle_id: str, fate: str) -> None:
        """The bundle has this fate."""
        self._write({"promise": bundle_id, "fate": fate})

    def failure(self, what: str, reason: str) -> None:
        """Something did not work, and the agent knows."""
        self._write({"failure": what, "reason": reason})

    def tried(self) -> None:
        """What follows must work."""
        self._write({"tried": True})

    def worked(self) -> None:
        """What followed did work."""
        self._write({"worked": True})

    def broken(self, what: str) -> None:
        """The running agent is not what it says."""
        self._write({"broken": what})

    def _write(self, entry: dict[str, Any]) -> None:
        os.write(self._descriptor, json.dumps(entry).encode() + b"\n")


def report_entries(data: bytes) -> list[dict[str, Any]]:
    """Lines of a report."""
    return [json.loads(line) for line in data.splitlines()]
