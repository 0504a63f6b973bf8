"""Rolls AOD Fleet out over virtual machines and removes it again: ``python -m tests.fleet_lab``."""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from agent import __version__
from tests.fleet.releases import build_release
from tests.fleet_lab import kernel_upgrade
from tests.fleet_lab.laboratory import FleetLaboratory
from tests.fleet_lab.record import Record
from tests.fleet_lab.steps import CANARY_FIRST, STEPS, Fleet, StepFunction, states
from tests.fleet_lab.topology import TOPOLOGIES
from tests.go_programs import MINIO, ProgramUnavailableError, find_program
from tests.minio_server import MinioServer
from tests.vm.image import ImageBuildError, LabUnavailableError, image_for


def main() -> int:
    """Run what was asked for; 1 as soon as a step fails. SIGTERM ends it as SIGINT does."""
    options = read_options()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    record = Record(shlex.join(["python", "-m", "tests.fleet_lab", *sys.argv[1:]]))
    try:
        image, store = image_for("6.1"), find_program(MINIO)
    except (LabUnavailableError, ImageBuildError, ProgramUnavailableError) as error:
        raise SystemExit(str(error)) from None
    steps = {**STEPS, **kernel_upgrade.STEPS}
    with tempfile.TemporaryDirectory(prefix="aod-fleet-lab-") as temporary, ExitStack() as stack:
        minio = stack.enter_context(MinioServer(store, Path(temporary) / "minio"))
        stack.callback(record.write, options.json)
        archives = Path(temporary) / "dist"
        build_release(archives, __version__)
        for topology in options.topology:
            directory = Path(temporary) / topology
            lab = FleetLaboratory(image, minio, directory, topology, options.clients)
            try:
                run_steps(
                    record,
                    Fleet(lab, archives, CANARY_FIRST),
                    {name: steps[name] for name in options.steps},
                )
            except Exception as error:
                print(f"\n{type(error).__name__}: {error}")
                return 1
    return 0


def run_steps(record: Record, fleet: Fleet, steps: dict[str, StepFunction]) -> None:
    """On fresh machines. Raises what a step raises, when the consoles have been printed."""
    lab = fleet.lab
    with ExitStack() as machines:
        with record.step(lab.topology, "boot") as step:
            machines.enter_context(lab)
            fleet.at_first = states(fleet)
            step.found(machines=lab.names)
        try:
            for name, action in steps.items():
                with record.step(lab.topology, name) as step:
                    action(fleet, step)
        except Exception:
            print(lab.consoles())
            raise


def read_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.fleet_lab", description=__doc__)
    parser.add_argument(
        "--topology",
        type=_list_of(TOPOLOGIES),
        default=list(TOPOLOGIES),
        metavar="NAME,...",
        help="direct, central (default: both, each on fresh machines)",
    )
    parser.add_argument("--clients", type=int, default=3, help="how many (%(default)s)")
    parser.add_argument(
        "--steps",
        type=_list_of([*STEPS, *kernel_upgrade.STEPS]),
        default=list(STEPS),
        metavar="NAME,...",
        help=f"in this order (default: {','.join(STEPS)})",
    )
    parser.add_argument(
        "--kernel-upgrade",
        action="store_const",
        dest="steps",
        const=["install", *kernel_upgrade.STEPS],
        help="instead: a new kernel on each client, and a reboot into it",
    )
    parser.add_argument(
        "--json", type=Path, default=Path("build/fleet-lab.json"), help="(%(default)s)"
    )
    return parser.parse_args()


def _list_of(names: Sequence[str]) -> Callable[[str], list[str]]:
    def parse(text: str) -> list[str]:
        chosen = text.split(",")
        if unknown := [name for name in chosen if name not in names]:
            raise argparse.ArgumentTypeError(f"no {', '.join(unknown)}: {', '.join(names)}")
        return chosen

    return parse


if __name__ == "__main__":
    raise SystemExit(main())
