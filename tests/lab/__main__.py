"""Measures detection on labelled episodes in the virtual machine: ``python -m tests.lab``."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from tests.lab import report
from tests.lab.catalogue import CATALOGUE, SEEDS, Case, UnknownClassError, draw, matching
from tests.lab.episode_runner import EpisodeRunner
from tests.lab.episode_store import Episode, keep_episode
from tests.lab.impact import NoImpactError, check_impact
from tests.lab.laboratory import Laboratory
from tests.lab.replay import kernels, score
from tests.vm.image import image_for
from tests.vm.machine import GuestCommandError, MachineError, VirtualMachine

COMMAND = "make lab"

#: What can go wrong with an episode without ending the run.
EPISODE_FAULTS = (GuestCommandError, MachineError, NoImpactError, OSError, ValueError)


def main() -> int:
    """Run the chosen episodes; 1 if one of them went wrong."""
    options = read_options()
    cases = [draw(name, seed) for seed in range(options.seeds) for name in options.episodes]
    episodes, failed = record(cases, options)
    if options.keep:
        for episode in episodes:
            keep_episode(episode, options.keep)
    if episodes:
        publish(episodes, options)
    if failed:
        print(f"{failed} of {len(cases)} episodes FAILED")
    return 1 if failed else 0


def publish(episodes: list[Episode], options: argparse.Namespace) -> None:
    """Print the score of what the running agent collected, and write it down."""
    scores = [score(episode, episode.bundles()) for episode in episodes]
    print(report.text(scores))
    report.write_json(options.json, scores, COMMAND)
    if options.docs:
        options.docs.write_text(report.markdown(scores, COMMAND, kernels(episodes)))


def read_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.lab", description=__doc__)
    parser.add_argument(
        "--episodes",
        type=_classes,
        default=list(CATALOGUE),
        metavar="PATTERN,...",
        help="classes, such as delay_*,idle (default: all)",
    )
    parser.add_argument("--seeds", type=int, default=SEEDS, help="of each class (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("build/lab"), help="(%(default)s)")
    parser.add_argument("--kernel", default="6.1", help="of the guest (%(default)s)")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="copy episodes there for replay")
    parser.add_argument("--json", type=Path, default=Path("build/lab.json"), help="(%(default)s)")
    parser.add_argument("--docs", type=Path, metavar="FILE", help="write the tables as Markdown")
    return parser.parse_args()


def record(cases: list[Case], options: argparse.Namespace) -> tuple[list[Episode], int]:
    """The episodes that went well, and how many did not."""
    episodes: list[Episode] = []
    started = time.monotonic()
    with VirtualMachine(image_for(options.kernel)) as vm:
        laboratory = Laboratory(vm)
        laboratory.set_up()
        print(f"laboratory ready after {time.monotonic() - started:.0f} s", flush=True)
        runner = EpisodeRunner(laboratory, options.out)
        for number, case in enumerate(cases, start=1):
            begun = time.monotonic()
            try:
                episode = runner.run(case)
                outcome = check_impact(episode)
                episodes.append(episode)
                outcome += f", {len(episode.bundles())} bundles"
            except EPISODE_FAULTS as fault:
                outcome = f"FAILED: {fault}\n--- the guest's console\n{vm.console_tail()}"
            print(
                f"[{number}/{len(cases)}] {case.name}-{case.seed} {dict(case.parameters)} "
                f"{time.monotonic() - begun:.0f} s: {outcome}",
                flush=True,
            )
    return episodes, len(cases) - len(episodes)


def _classes(text: str) -> list[str]:
    try:
        return matching(text)
    except UnknownClassError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


if __name__ == "__main__":
    raise SystemExit(main())
