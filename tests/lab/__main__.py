"""Measures detection on labelled episodes in the virtual machine: ``python -m tests.lab``."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from subprocess import TimeoutExpired

from tests.lab import report
from tests.lab.catalogue import (
    CATALOGUE,
    SEEDS,
    Case,
    UnknownClassError,
    draw,
    is_held_out,
    matching,
)
from tests.lab.episode_runner import EpisodeRunner, LaboratoryLostError
from tests.lab.episode_store import Episode, discard_episode, finished_episodes, keep_episode
from tests.lab.impact import WrongLabelsError, check_impact
from tests.lab.laboratory import Laboratory
from tests.lab.replay import kernels, score
from tests.lab.score import EpisodeScore
from tests.vm.guest import GuestCommandError, MachineError
from tests.vm.image import Image, ImageBuildError, LabUnavailableError, image_for
from tests.vm.machine import VirtualMachine
from tests.vm.recipe import KERNELS

COMMAND = "make lab"

#: How often an episode is run whose trace belies its labels, as on a busy machine.
ATTEMPTS = 3

#: What can go wrong with an episode without ending the run.
EPISODE_FAULTS = (
    GuestCommandError,
    MachineError,
    OSError,
    TimeoutExpired,
    ValueError,
    WrongLabelsError,
)


def main() -> int:
    """Run the chosen episodes; 1 if one of them went wrong."""
    options = read_options()
    cases = chosen_cases(options)
    names = {case.title for case in cases}
    done = finished_episodes(options.out) if options.resume else []
    episodes = [episode for episode in done if episode.name in names]
    missing = [case for case in cases if case.title not in {e.name for e in episodes}]
    try:
        episodes += record(missing, image_for(options.kernel), options) if missing else []
    except (LabUnavailableError, ImageBuildError) as error:
        raise SystemExit(str(error)) from None
    except KeyboardInterrupt:
        print("stopped before the first episode")
    scores = publish(episodes, options) if episodes else []
    failed = len(cases) - len(episodes)
    if failed:
        print(f"{failed} of {len(cases)} episodes FAILED or were not run")
    wrong = [found for found in scores if options.strict and not found.right]
    for found in wrong:
        print(
            f"WRONG: {found.name}-{found.seed}: {found.bundles} bundles, "
            f"{found.false_bundles} of them false, recalled: {found.recalled}"
        )
    return 1 if failed or wrong else 0


def chosen_cases(options: argparse.Namespace) -> list[Case]:
    """All classes of one seed before the next, the held-out seed first: a run that is stopped has
    episodes of both kinds."""
    seeds = sorted(range(options.seeds), key=lambda seed: (seed // SEEDS, not is_held_out(seed)))
    return [draw(name, seed) for seed in seeds for name in options.episodes]


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
    parser.add_argument(
        "--resume", action="store_true", help="run only what --out has no finished episode of"
    )
    parser.add_argument(
        "--strict", action="store_true", help="exit 1 for a fault missed, or a false bundle"
    )
    parser.add_argument(
        "--kernel", choices=sorted(KERNELS), default="6.1", help="of the guest (%(default)s)"
    )
    parser.add_argument("--keep", type=Path, metavar="DIR", help="copy episodes there for replay")
    parser.add_argument("--json", type=Path, default=Path("build/lab.json"), help="(%(default)s)")
    parser.add_argument("--docs", type=Path, metavar="FILE", help="write the tables as Markdown")
    return parser.parse_args()


def record(cases: list[Case], image: Image, options: argparse.Namespace) -> list[Episode]:
    """The episodes that went well, kept if that was asked for."""
    episodes: list[Episode] = []
    started = time.monotonic()
    with VirtualMachine(image) as vm:
        laboratory = Laboratory(vm)
        laboratory.set_up()
        print(f"laboratory ready after {time.monotonic() - started:.0f} s", flush=True)
        runner = EpisodeRunner(laboratory, options.out)
        for number, case in enumerate(cases, start=1):
            print(f"[{number}/{len(cases)}] {case.title}: ", end="", flush=True)
            try:
                episodes.append(run_case(runner, case))
            except LaboratoryLostError as lost:
                print(f"LABORATORY LOST: {lost}\n{vm.console_tail()}")
                break
            except KeyboardInterrupt:
                print("stopped: what there is by now is scored")
                break
            except EPISODE_FAULTS as fault:
                print(f"FAILED: {fault}\n--- the guest's console\n{vm.console_tail()}")
            else:
                if options.keep:
                    keep_episode(episodes[-1], options.keep)
    return episodes


def run_case(runner: EpisodeRunner, case: Case) -> Episode:
    """One episode whose trace bears out its labels. Raises `WrongLabelsError` in the end."""
    attempt = 1
    while True:
        started = time.monotonic()
        episode = runner.run(case)
        try:
            impact = check_impact(episode)
        except WrongLabelsError as fault:
            discard_episode(episode)
            if attempt == ATTEMPTS:
                raise
            print(f"once more, because {fault}; ", end="", flush=True)
            attempt += 1
        else:
            took_sec = time.monotonic() - started
            print(f"{impact}, {len(episode.bundles())} bundles, {took_sec:.0f} s", flush=True)
            return episode


def publish(episodes: list[Episode], options: argparse.Namespace) -> list[EpisodeScore]:
    """Print the score of what the running agent collected, and write it down."""
    scores = [score(episode, episode.bundles()) for episode in episodes]
    print(report.text(scores))
    report.write_json(options.json, scores, COMMAND)
    if options.docs:
        options.docs.write_text(report.markdown(scores, COMMAND, kernels(episodes)))
    return scores


def _classes(text: str) -> list[str]:
    try:
        return matching(text)
    except UnknownClassError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


if __name__ == "__main__":
    raise SystemExit(main())
