"""``aod-agent status --wait``: whether an agent that was just started does its work."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.health import NotHealthyError, wait_until_healthy
from agent.service.status_server import StatusServer

FAULT = {"state": "fault", "kind": "no_bcc", "message": "no bcc", "remedy": "apt install bcc"}


class Answers:
    """The status of an agent on its way: one source's state after another, the last for ever."""

    def __init__(self) -> None:
        self.states: list[dict[str, Any]] = []
        self.asked = 0

    def __call__(self) -> dict[str, Any]:
        self.asked += 1
        return {"source": self.states.pop(0) if len(self.states) > 1 else self.states[0]}


@pytest.fixture
def answers(tmp_path: Path) -> Iterator[Answers]:
    answers = Answers()
    server = StatusServer(tmp_path, answers)
    server.open()
    thread = threading.Thread(target=server.run)
    thread.start()
    yield answers
    server.stop()
    thread.join(10)


@pytest.mark.parametrize("state", ["watching", "waiting_for_cifs", "detached"])
def test_it_waits_as_long_as_the_agent_needs(answers: Answers, tmp_path: Path, state: str) -> None:
    answers.states = [{"state": "starting"}, {"state": "loading"}, FAULT, {"state": state}]
    assert wait_until_healthy(tmp_path, 60)["source"] == {"state": state}
    assert answers.asked == 4


def test_a_fault_that_stays_is_told_with_its_remedy(answers: Answers, tmp_path: Path) -> None:
    answers.states = [FAULT]
    with pytest.raises(NotHealthyError, match=r"(?s)no bcc.*apt install bcc"):
        wait_until_healthy(tmp_path, 0)
    assert answers.asked == 1


def test_a_host_without_headers_is_no_reason_to_take_a_release_back(
    answers: Answers, tmp_path: Path
) -> None:
    source = {**FAULT, "kind": "no_headers"}
    answers.states = [{"state": "loading"}, source]
    assert wait_until_healthy(tmp_path, 60)["source"] == source


def test_an_agent_that_restarts_for_ever_is_not_healthy(answers: Answers, tmp_path: Path) -> None:
    answers.states = [{"state": "restarting"}]
    with pytest.raises(NotHealthyError, match="NOT watching"):
        wait_until_healthy(tmp_path, 0.5)
    assert answers.asked > 1


def test_without_an_agent_the_reason_is_the_socket(tmp_path: Path) -> None:
    with pytest.raises(NotHealthyError, match="no agent answers"):
        wait_until_healthy(tmp_path, 0)
