"""The committed episodes, replayed through the agent's pipeline with the lab's rules."""

from __future__ import annotations

import pytest

from agent.config_loader import load_config
from tests.lab.episode_store import Episode, finished_episodes
from tests.lab.laboratory import CONFIG
from tests.lab.replay import EPISODES, replay_episodes


@pytest.mark.parametrize("episode", finished_episodes(EPISODES), ids=lambda episode: episode.name)
def test_every_fault_is_found_and_nothing_else(episode: Episode) -> None:
    (score,) = replay_episodes([episode], load_config(CONFIG).config)
    assert score.innocent is (episode.meta["kind"] == "innocent")
    assert score.recalled is not score.innocent
    assert score.false_bundles == 0
