"""The committed episodes, replayed through the agent's pipeline with the lab's rules."""

from __future__ import annotations

import pytest

from agent.config_loader import load_config
from tests.lab.episode_store import Episode, finished_episodes
from tests.lab.laboratory import CONFIG
from tests.lab.replay import EPISODES, replay_episodes


@pytest.mark.parametrize("episode", finished_episodes(EPISODES), ids=lambda episode: episode.name)
def test_every_episode_gets_a_score(episode: Episode) -> None:
    config = load_config(CONFIG).config
    (score,) = replay_episodes([episode], config)
    assert (score.name, score.seed) == (episode.meta["class"], episode.meta["seed"])
    assert score.innocent is (episode.meta["kind"] == "innocent")
    assert set(score.types) <= {rule.type.value for rule in config.guardian.anomalies.values()}
    assert score.recalled is (score.delay_sec is not None)
