"""Tries every crash, prints survived/tried, and writes the same figures to build/crash-matrix.json.

The exit status is 1 when an invariant broke.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

from tests.crash_matrix.figures import Figures
from tests.crash_matrix.matrix import try_points
from tests.crash_matrix.power_loss import lose_power, lose_power_after_errors
from tests.crash_matrix.victim import Victim
from tests.crash_matrix.victims import VICTIMS

OUT = Path("build/crash-matrix.json")
SHOWN = 20


def main(argv: Sequence[str] | None = None) -> int:
    """Try the victims named, all by default."""
    names = {victim.name: victim for victim in VICTIMS}
    parser = argparse.ArgumentParser(prog="tests.crash_matrix", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="VICTIM", help=f"of {', '.join(names)}")
    parser.add_argument(
        "--every", type=int, default=1, metavar="K", help="try each K-th point only"
    )
    arguments = parser.parse_args(argv)
    started = time.monotonic()
    figures: dict[str, Figures] = {}
    for name in arguments.names or names:
        figures[name] = _try(names[name], arguments.every)
        _print(name, figures[name])
    _write(figures, arguments.every, time.monotonic() - started)
    return int(any(one.broken for one in figures.values()))


def _try(victim: Victim, every: int) -> Figures:
    figures = Figures()
    for outcome in try_points(victim, every):
        figures.add_outcome(outcome)
    for loss in lose_power(victim):
        figures.add_loss(loss)
    for loss in lose_power_after_errors(victim, every):
        figures.add_loss(loss)
    return figures


def _print(name: str, figures: Figures) -> None:
    print(f"## {name}\n\n{figures.tables()}\n", flush=True)
    for result in figures.broken[:SHOWN]:
        print(f"BROKEN {result}", flush=True)


def _write(figures: dict[str, Figures], every: int, seconds: float) -> None:
    counts = {name: one.as_json() for name, one in figures.items()}
    document = {
        "made": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "kernel": os.uname().release,
        "strace": _first_line(["strace", "--version"]),
        "every": every,
        "seconds": round(seconds, 1),
        "victims": counts,
    }
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(document, indent=2) + "\n")
    for what in ("points", "power_losses"):
        tried = sum(count[what] for count in counts.values())
        key = "survived" if what == "points" else f"{what}_survived"
        survived = sum(count[key] for count in counts.values())
        print(f"{what.replace('_', ' ')}: {tried} tried, {survived} survived")
    print(f"{seconds:.0f} s, {OUT}")


def _first_line(command: Sequence[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\n")[0]


if __name__ == "__main__":
    sys.exit(main())
