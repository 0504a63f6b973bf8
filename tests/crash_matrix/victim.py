"""What the matrix knows of what it kills and fails."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.crash_matrix.report import Report

DELIVERED, PENDING, EVICTED, ABSENT = "delivered", "pending", "evicted", "absent"

Fates = Mapping[str, frozenset[str]]


@dataclass(frozen=True)
class Victim:
    """``seed`` makes the spool that ``act`` finds; ``look`` starts on what is left of it, and says
    in which ways it is not right then; ``fates`` are those that each bundle may have after any
    restart. The functions are a module's, so that other processes find them."""

    name: str
    seed: Callable[[Path], None]
    act: Callable[[Path, Report], None]
    fates: Fates
    look: Callable[[Path, Fates], list[str]]
