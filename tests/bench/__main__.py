"""Prints a table and writes the same figures to build/bench.json."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from tests.bench import (
    archive,
    collection,
    detection,
    fleet,
    footprint,
    kernel_time,
    reaction,
    redaction,
    shipping,
    storm,
)
from tests.bench.figure import Figure, table

OUT = Path("build/bench.json")


def main() -> None:
    """Run the benchmarks named, all by default."""
    benchmarks = {
        "detection": detection.measure,
        "reaction": reaction.measure,
        "storm": storm.measure,
        "archive": archive.measure,
        "collection": collection.measure,
        "redaction": redaction.measure,
        "footprint": footprint.measure,
        "shipping": shipping.measure,
        "kernel": kernel_time.measure,
        "fleet": fleet.measure,
    }
    parser = argparse.ArgumentParser(prog="tests.bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(benchmarks)}")
    names = parser.parse_args().names or list(benchmarks)
    figures: list[Figure] = []
    OUT.parent.mkdir(exist_ok=True)
    for name in names:
        print(f"measuring {name} ...", flush=True)
        figures += benchmarks[name]()
        OUT.write_text(json.dumps([vars(figure) for figure in figures], indent=2) + "\n")
    print(table(figures))


if __name__ == "__main__":
    main()
