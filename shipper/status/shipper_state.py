"""The service's last word on itself, kept in a file for the commands that look on.

Only a note for people and metrics: nothing is decided by it, and losing it loses nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from agent.storage import durable_file
from shipper.spools.state_directory import STATE_FILE

SHIPPING = "shipping"
IDLE = "idle"
PAUSED = "paused"
WAITING = "waiting"
UNKNOWN = "unknown"


@dataclass(frozen=True)
class FaultNote:
    """One fault: of everything, or of the bundle ``bundle``. ``since`` is UTC, ISO 8601."""

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


@dataclass(frozen=True)
class ShipperState:
    """What the service does, ``since`` when, and what is in the way; times are UTC, ISO 8601.

    ``state`` is `SHIPPING`, `IDLE` (nothing is pending), `PAUSED` (a fault concerns all, until
    ``next_try``) or `WAITING` (before the first look); `UNKNOWN` where no service wrote.
    ``shipped_bytes`` and ``failures`` (attempts by the fault's kind) count from ``started`` on;
    ``bytes_per_sec`` is the recent rate, None when nothing went lately. ``process`` is the
    service's own id.
    """

    state: str = UNKNOWN
    faults: list[FaultNote] = field(default_factory=list)
    since: str | None = None
    next_try: str | None = None
    started: str | None = None
    updated: str | None = None
    last_success: str | None = None
    bytes_per_sec: float | None = None
    shipped_bytes: int = 0
    failures: Mapping[str, int] = field(default_factory=dict)
    version: str | None = None
    process: int | None = None

    @property
    def pause_faults(self) -> list[FaultNote]:
        """Those that concern all bundles."""
        return [fault for fault in self.faults if fault.bundle is None]


class StateFile:
    """Reads and writes the state in ``directory`` (see `state_directory`). One writer."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / STATE_FILE

    def read(self) -> ShipperState:
        """The last state; an unknown one when there is no file or it is not one of ours."""
        try:
            return _parse(json.loads(durable_file.read_plain(self._path)))
        except (OSError, ValueError, LookupError, TypeError, RecursionError):
            return ShipperState()

    def write(self, state: ShipperState) -> None:
        """Replace the state, unless nothing but ``updated`` differs; OSError if that fails.

        A fault that says the same as before keeps its ``since``.
        """
        known = self.read()
        faults = [
            next((old for old in known.faults if old.says_the_same(fault)), fault)
            for fault in state.faults
        ]
        state = replace(state, faults=faults)
        if replace(state, updated=known.updated) != known:
            content = json.dumps(asdict(state), indent=2)
            durable_file.publish_bytes(self._path, content.encode() + b"\n")


def _parse(document: dict[str, Any]) -> ShipperState:
    """From any version's file: what it does not tell is unknown."""
    faults = [_note(fault) for fault in document["faults"]]
    texts = ("since", "next_try", "started", "updated", "last_success", "version")
    rate, process = document.get("bytes_per_sec"), document.get("process")
    return ShipperState(
        state=str(document.get("state", UNKNOWN)),
        faults=faults,
        bytes_per_sec=None if rate is None else float(rate),
        process=None if process is None else int(process),
        shipped_bytes=int(document.get("shipped_bytes", 0)),
        failures={str(kind): int(n) for kind, n in dict(document.get("failures", {})).items()},
        **{name: _optional_text(document.get(name)) for name in texts},
    )


def _note(fault: dict[str, Any]) -> FaultNote:
    texts = {name: str(fault[name]) for name in ("kind", "message", "remedy", "since")}
    return FaultNote(**texts, bundle=_optional_text(fault["bundle"]))


def _optional_text(value: object) -> str | None:
    return None if value is None else str(value)
