"""One measured number beside what was aimed at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """``aim`` is in the same unit; empty where there is none."""

    name: str
    value: float
    unit: str
    aim: str = ""


def table(figures: Sequence[Figure]) -> str:
    """Aligned columns for a terminal."""
    width = max(len(figure.name) for figure in figures)
    lines = [f"{'figure':<{width}}  {'measured':>12}  aim"]
    for figure in figures:
        lines.append(
            f"{figure.name:<{width}}  {figure.value:>8.4g} {figure.unit:<6} {figure.aim}".rstrip()
        )
    return "\n".join(lines)
