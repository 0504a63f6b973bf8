"""Counts what was tried and what was survived, for people and for machines."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from tests.crash_matrix.figures import Cell, nested, table
from tests.store_matrix.matrix import Outcome


@dataclass
class Figures:
    """A cell is a fault and a kind of request."""

    tried: Counter[Cell] = field(default_factory=Counter)
    survived: Counter[Cell] = field(default_factory=Counter)
    remains: int = 0
    broken: list[dict[str, Any]] = field(default_factory=list)

    def add(self, outcome: Outcome) -> None:
        """Count one point."""
        cell = (outcome.fault, outcome.kind)
        self.tried[cell] += 1
        self.survived[cell] += not outcome.broken
        if not outcome.broken:
            self.remains += outcome.remains > 0
        else:
            self.broken.append({"point": outcome.point, "broken": outcome.broken})

    def as_json(self) -> dict[str, Any]:
        """Everything."""
        return {
            "points": self.tried.total(),
            "survived": self.survived.total(),
            "points_with_uploads_left": self.remains,
            "by_fault_and_request": nested(self.tried, self.survived),
            "broken": self.broken,
        }

    def as_table(self) -> str:
        """In Markdown; a cell is survived/tried."""
        return table("fault", self.tried, self.survived)
