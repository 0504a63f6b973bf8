"""The small objects beside the bundles: what was lost, and that a host lives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

JSON_TYPE = "application/json"


@dataclass(frozen=True)
class Document:
    """A small JSON object of the store.

    ``name`` is the id of the bundle that a tombstone stands for, or the host of a heartbeat. A
    tombstone never changes; a heartbeat replaces the one before.
    """

    kind: Literal["tombstone", "heartbeat"]
    name: str
    key: str
    content: bytes
