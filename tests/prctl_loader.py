"""The loader with test probes: what a test replaces in it, it names on the command line."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bpf.headers import HeaderPlaces
from bpf.loader import main
from bpf.probe_set import CORE, SOURCE_DIRECTORY, ProbeSet, Tracepoint

TEST_SOURCE = Path(__file__).parent / "integration" / "prctl_probes.c"


def run(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--option", type=int, required=True)
    parser.add_argument("--source", type=Path, default=TEST_SOURCE)
    parser.add_argument("--include", type=Path, default=SOURCE_DIRECTORY)
    parser.add_argument("--event", default="sys_enter_prctl")
    parser.add_argument("--no-headers", action="store_true")
    own, rest = parser.parse_known_args(arguments)
    probes = ProbeSet(
        sources=(*CORE, own.source),
        tracepoints=(Tracepoint("syscalls", own.event, "on_prctl"),),
        include=own.include,
        flags=("-DAOD_COMPOUND", f"-DTEST_OPTION={own.option}"),
    )
    nowhere = Path("/nonexistent")
    places = HeaderPlaces(nowhere, nowhere, nowhere) if own.no_headers else None
    return main(rest, probes, places)


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
