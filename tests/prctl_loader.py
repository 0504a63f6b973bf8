"""The loader with test probes: what a test replaces in it, it names on the command line."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bpf.headers import HeaderPlaces
from bpf.loader import main
from bpf.probe_set import CORE, SOURCE_DIRECTORY, OptionalProbe, ProbeSet, Tracepoint

TEST_SOURCE = Path(__file__).parent / "integration" / "prctl_probes.c"


def run(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--option", type=int, required=True)
    parser.add_argument("--source", type=Path, default=TEST_SOURCE)
    parser.add_argument("--include", type=Path, default=SOURCE_DIRECTORY)
    parser.add_argument("--event", default="sys_enter_prctl")
    parser.add_argument("--no-headers", action="store_true")
    parser.add_argument("--optional-source", type=Path, help="of a probe on --optional-event")
    parser.add_argument("--optional-event")
    parser.add_argument("--optional-field", action="append", default=[])
    own, rest = parser.parse_known_args(arguments)
    probes = ProbeSet(
        sources=(*CORE, own.source),
        tracepoints=(Tracepoint("syscalls", own.event, "on_prctl"),),
        optional=(optional_probe(own),) if own.optional_source else (),
        include=own.include,
        flags=("-DAOD_COMPOUND", f"-DTEST_OPTION={own.option}"),
    )
    nowhere = Path("/nonexistent")
    places = HeaderPlaces(nowhere, nowhere, nowhere) if own.no_headers else None
    return main(rest, probes, places)


def optional_probe(own: argparse.Namespace) -> OptionalProbe:
    """In the place of the reconnect probe."""
    return OptionalProbe(
        "reconnect",
        own.optional_source,
        Tracepoint("syscalls", own.optional_event, "on_optional"),
        tuple(own.optional_field),
        ("-DOPTIONAL_FLAG",),
    )


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
