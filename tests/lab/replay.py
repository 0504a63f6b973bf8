"""Replays recorded episodes through the agent's pipeline: ``python -m tests.lab.replay``.

Neither root nor a virtual machine is needed.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from agent.config_loader import load_config
from agent.configuration.schema import Config
from agent.replay import replay_trace
from agent.service.stop_signal import StopSignal
from tests.lab import report
from tests.lab.episode_store import TRACE, Episode, Row, finished_episodes
from tests.lab.impact import fault_interval
from tests.lab.laboratory import CONFIG
from tests.lab.score import EpisodeScore, score_episode

EPISODES = Path(__file__).parents[1] / "data" / "episodes"


def main() -> None:
    """Print the score of every episode there is, and write it down."""
    parser = argparse.ArgumentParser(prog="python -m tests.lab.replay", description=__doc__)
    parser.add_argument("--from", dest="source", type=Path, default=EPISODES, metavar="DIR")
    parser.add_argument("--config", type=Path, default=CONFIG, help="rules (%(default)s)")
    parser.add_argument("--json", type=Path, default=Path("build/lab-replay.json"))
    parser.add_argument("--docs", type=Path, metavar="FILE", help="write the tables as Markdown")
    options = parser.parse_args()
    episodes = finished_episodes(options.source)
    if not episodes:
        raise SystemExit(f"no finished episodes in {options.source}: make lab-traces")
    scores = replay_episodes(episodes, load_config(options.config).config)
    command = "make lab-replay"
    print(report.text(scores))
    report.write_json(options.json, scores, command)
    if options.docs:
        options.docs.write_text(report.markdown(scores, command, kernels(episodes)))


def replay_episodes(episodes: Iterable[Episode], config: Config) -> list[EpisodeScore]:
    """Score what ``config`` makes of the recorded commands; no action is run."""
    detection = without_actions(config)
    return [score(episode, replayed_bundles(episode, detection)) for episode in episodes]


def replayed_bundles(episode: Episode, config: Config) -> list[Row]:
    """Manifests of the bundles that come of the episode's trace."""
    with tempfile.TemporaryDirectory(prefix="aod-lab-") as spool:
        result = replay_trace(
            episode.directory / TRACE, config, Path(spool), speed=0, interrupt=StopSignal()
        )
    return list(result.manifests)


def score(episode: Episode, manifests: list[Row]) -> EpisodeScore:
    """Judge ``manifests`` by the episode's labels and its trace."""
    fault = fault_interval(episode.phases())
    return score_episode(episode.meta, fault, episode.trace().events, manifests)


def kernels(episodes: Iterable[Episode]) -> list[str]:
    """On which kernels the episodes were recorded."""
    return sorted({str(episode.meta["kernel"]) for episode in episodes})


def without_actions(config: Config) -> Config:
    """The same rules with nothing to collect."""
    rules = config.guardian.anomalies
    silent = {name: replace(rule, actions=()) for name, rule in rules.items()}
    return replace(config, guardian=replace(config.guardian, anomalies=silent))


if __name__ == "__main__":
    main()
