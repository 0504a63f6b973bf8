"""Spoils every request to the store in every way, kills the shipper at each, prints survived/tried,
and writes the same figures to build/store-matrix.json.

The exit status is 1 when an invariant broke.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from tests.go_programs import MINIO, find_program
from tests.store_matrix.figures import Figures
from tests.store_matrix.kills import plan_kills, try_kills
from tests.store_matrix.matrix import Outcome, plan, try_points
from tests.store_matrix.runs import open_bench, ship_in_rounds

OUT = Path("build/store-matrix.json")
SHOWN = 20


def main(argv: Sequence[str] | None = None) -> int:
    """Try all points, or a part of them."""
    parser = argparse.ArgumentParser(prog="tests.store_matrix", description=__doc__)
    parser.add_argument(
        "--every", type=int, default=1, metavar="K", help="try each K-th point only"
    )
    parser.add_argument(
        "--write-only", action="store_true", help="with a key that may only put and abort"
    )
    arguments = parser.parse_args(argv)
    every, started = arguments.every, time.monotonic()
    with open_bench(find_program(MINIO), arguments.write_only) as bench, _silence():
        requests = bench.clean_run(ship_in_rounds)
        figures = {
            "faults": _count(try_points(bench, plan(requests)[::every])),
            "kills": _count(try_kills(bench, plan_kills(bench, requests)[::every])),
        }
    for name, one in figures.items():
        _print(name, one)
    settings = {"every": every, "write_only": arguments.write_only}
    _write(figures, settings, time.monotonic() - started)
    return int(any(one.broken for one in figures.values()))


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """What the shipper warns of is what is done to it here."""
    logging.disable()
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def _count(outcomes: Iterable[Outcome]) -> Figures:
    figures = Figures()
    for outcome in outcomes:
        figures.add(outcome)
    return figures


def _print(name: str, figures: Figures) -> None:
    print(f"## {name}\n\n{figures.as_table()}\n")
    for result in figures.broken[:SHOWN]:
        print(f"BROKEN {result}")


def _write(figures: dict[str, Figures], settings: dict[str, Any], seconds: float) -> None:
    document = {
        "made": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "kernel": os.uname().release,
        **settings,
        "seconds": round(seconds, 1),
        **{name: one.as_json() for name, one in figures.items()},
    }
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(document, indent=2) + "\n")
    for name, one in figures.items():
        print(
            f"{name}: {one.tried.total()} tried, {one.survived.total()} survived; uploads without "
            f"parts, for the lifecycle rule, left by {one.remains}"
        )
    print(f"{seconds:.0f} s, {OUT}")


if __name__ == "__main__":
    sys.exit(main())
