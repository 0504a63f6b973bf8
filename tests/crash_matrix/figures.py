"""Counts what was tried and what was survived, for people and for machines."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from tests.crash_matrix.matrix import KILL, Outcome
from tests.crash_matrix.power_loss import Loss

Cell = tuple[str, str]


@dataclass
class Figures:
    """Of one victim. A cell is an operation and a fault, or an operation and what was lost."""

    tried: Counter[Cell] = field(default_factory=Counter)
    survived: Counter[Cell] = field(default_factory=Counter)
    states: Counter[Cell] = field(default_factory=Counter)
    states_survived: Counter[Cell] = field(default_factory=Counter)
    distinct_states: int = 0
    broken: list[dict[str, Any]] = field(default_factory=list)

    def add_outcome(self, outcome: Outcome) -> None:
        """Count one point of the matrix."""
        cell = (outcome.operation, outcome.fault)
        self.tried[cell] += 1
        self.survived[cell] += not outcome.broken
        if outcome.broken:
            self.broken.append(vars(outcome))

    def add_loss(self, loss: Loss) -> None:
        """Count one state after a loss of power."""
        cell = ("after an error" if loss.error else "without an error", loss.lost)
        self.states[cell] += 1
        self.states_survived[cell] += not loss.broken
        self.distinct_states += not loss.known
        if loss.broken and not loss.known:
            self.broken.append(vars(loss))

    def as_json(self) -> dict[str, Any]:
        """Everything."""
        return {
            "points": self.tried.total(),
            "survived": self.survived.total(),
            "by_operation_and_fault": nested(self.tried, self.survived),
            "power_losses": self.states.total(),
            "power_losses_distinct": self.distinct_states,
            "power_losses_survived": self.states_survived.total(),
            "by_what_was_lost": nested(self.states, self.states_survived),
            "broken": self.broken,
        }

    def tables(self) -> str:
        """Two tables in Markdown; a cell is survived/tried."""
        return "\n\n".join(
            (
                table("operation", self.tried, self.survived),
                table("power loss; lost was", self.states, self.states_survived),
            )
        )


def nested(tried: Counter[Cell], survived: Counter[Cell]) -> dict[str, Any]:
    """For JSON: by row, then by column."""
    found: dict[str, Any] = {}
    for (row, column), count in tried.items():
        cell = {"tried": count, "survived": survived[row, column]}
        found.setdefault(row, {})[column] = cell
    return found


def table(corner: str, tried: Counter[Cell], survived: Counter[Cell]) -> str:
    """In Markdown; a cell is survived/tried."""
    rows = list(dict.fromkeys(row for row, _ in tried))
    columns = sorted(dict.fromkeys(column for _, column in tried), key=lambda name: name != KILL)
    lines = [[corner, *columns], ["---"] * (len(columns) + 1)]
    for row in [*rows, "all"]:
        cells = [_cell(tried, survived, row, column) for column in columns]
        lines.append([row, *cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(tried: Counter[Cell], survived: Counter[Cell], row: str, column: str) -> str:
    cells = [cell for cell in tried if cell[1] == column and row in (cell[0], "all")]
    count = sum(tried[cell] for cell in cells)
    return f"{sum(survived[cell] for cell in cells)}/{count}" if count else "-"
