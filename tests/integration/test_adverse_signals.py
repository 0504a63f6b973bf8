"""A signal that a thread other than the main one takes, as happens while children are started."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from agent.service.status_server import query_status
from tests.evidence import wait_until
from tests.live_agent import CONFIG

ROOT = Path(__file__).parents[2]


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """``aod-agent run``."""
    text = CONFIG.read_text().replace("/var/log/aod", str(tmp_path / "spool"))
    (tmp_path / "config.yaml").write_text(text)
    with subprocess.Popen(
        [sys.executable, "-m", "agent.cli", "run", "--config", str(tmp_path / "config.yaml")],
        env={**os.environ, "RUNTIME_DIRECTORY": str(tmp_path / "run")},
        stderr=subprocess.DEVNULL,
        cwd=ROOT,
    ) as agent:
        try:
            wait_until(lambda: {"LogCollector", "SpaceWatcher"} <= thread_ids(agent).keys())
            yield agent
        finally:
            agent.kill()


def thread_ids(agent: subprocess.Popen[bytes]) -> dict[str, int]:
    """By name."""
    tasks = Path(f"/proc/{agent.pid}/task").iterdir()
    return {(task / "comm").read_text().strip(): int(task.name) for task in tasks}


def signal_thread(agent: subprocess.Popen[bytes], name: str, number: signal.Signals) -> None:
    """tgkill(2)"""
    assert ctypes.CDLL(None).tgkill(agent.pid, thread_ids(agent)[name], number) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_agent_ends(agent: subprocess.Popen[bytes], number: signal.Signals) -> None:
    signal_thread(agent, "LogCollector", number)
    assert agent.wait(60) == 0


def test_the_agent_takes_its_configuration_anew(
    agent: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    config = tmp_path / "config.yaml"
    for floor_mb in (7, 8):
        config.write_text(re.sub("min_free_mb: .*", f"min_free_mb: {floor_mb}", config.read_text()))
        signal_thread(agent, "SpaceWatcher", signal.SIGHUP)
        wait_until(partial(has_floor, tmp_path / "run", floor_mb))
    agent.terminate()
    assert agent.wait(60) == 0


def has_floor(runtime: Path, floor_mb: int) -> bool:
    return query_status(runtime)["disk"]["floor_bytes"] == floor_mb << 20
