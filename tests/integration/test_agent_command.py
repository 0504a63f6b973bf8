"""The command line: what people type, and what they are told."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from agent.events.trace import create_trace
from tests.evidence import make_events

CONFIG = Path(__file__).parents[2] / "config" / "config.yaml"
COMMANDS = ["run", "check-config", "replay", "record", "status", "capture"]


def aod_agent(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "agent.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        cwd=Path(__file__).parents[2],
    )


def test_help_names_every_command_and_shows_examples() -> None:
    result = aod_agent("--help")
    assert result.returncode == 0
    assert all(command in result.stdout for command in COMMANDS)
    assert "examples:" in result.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str) -> None:
    assert aod_agent(command, "--help").returncode == 0


def test_the_shipped_configuration_is_fine_and_silent() -> None:
    result = aod_agent("check-config", CONFIG)
    assert (result.returncode, result.stderr) == (0, "")
    assert "slow_commands, failed_commands" in result.stdout


@pytest.mark.parametrize(
    "command",
    [["check-config"], ["run", "--config"], ["replay", "t", "--config"]],
    ids=["check-config", "run", "replay"],
)
def test_a_wrong_configuration_is_exit_2_with_every_fault_and_nothing_started(
    command: list[str], tmp_path: Path
) -> None:
    spool = tmp_path / "spool"
    text = CONFIG.read_text().replace("/var/log/aod", str(spool))
    text = text.replace("mode: all", "mode: al").replace(
        "acceptable_count: 5", "acceptable_count: 0"
    )
    path = tmp_path / "config.yaml"
    path.write_text(text)
    result = aod_agent(*command, path)
    assert result.returncode == 2
    assert "slow_commands.mode" in result.stderr
    assert "slow_commands.acceptable_count" in result.stderr
    line = 1 + text[: text.index("mode: al")].count("\n")
    assert f"config.yaml:{line}:" in result.stderr
    assert not spool.exists()


def test_a_missing_configuration_is_exit_2(tmp_path: Path) -> None:
    result = aod_agent("run", "--config", tmp_path / "nothing.yaml")
    assert result.returncode == 2
    assert "nothing.yaml" in result.stderr


def test_status_without_an_agent_is_exit_3(tmp_path: Path) -> None:
    result = aod_agent("status", "--runtime-dir", tmp_path)
    assert result.returncode == 3
    assert "no agent answers" in result.stderr


def test_waiting_for_an_agent_that_does_not_come_is_exit_1_with_the_reason(tmp_path: Path) -> None:
    result = aod_agent("status", "--wait", "0.1", "--runtime-dir", tmp_path)
    assert (result.returncode, result.stdout) == (1, "")
    assert "not healthy after 0.1 s: no agent answers" in result.stderr


@pytest.mark.parametrize("speed", ["-1", "nan", "fast"])
def test_a_speed_that_makes_no_sense_is_exit_2(speed: str, tmp_path: Path) -> None:
    assert aod_agent("replay", "t", f"--speed={speed}").returncode == 2


def test_replay_prints_what_it_saw_for_people_and_for_machines(tmp_path: Path) -> None:
    trace = tmp_path / "t.trace"
    with create_trace(trace, {"wall_offset_ns": 0}) as writer:
        writer.write(make_events(500))
    options = ["--config", CONFIG, "--output", tmp_path / "out"]
    people = aod_agent("replay", trace, *options)
    assert people.returncode == 0, people.stderr
    assert people.stderr == ""
    assert "saw        500 SMB commands" in people.stdout
    assert "triggered  slow_commands" in people.stdout
    machines = json.loads(aod_agent("replay", trace, *options, "--json").stdout)
    assert machines["commands"] == 500
    assert machines["manifests"][0]["anomaly"] == "slow_commands"


def test_replay_of_something_else_is_exit_1(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("not a trace")
    result = aod_agent("replay", other, "--config", CONFIG, "--output", tmp_path / "out")
    assert result.returncode == 1
    assert "not a trace" in result.stderr
    assert "Traceback" not in result.stderr


def test_record_without_cifs_says_what_is_missing(tmp_path: Path) -> None:
    if Path("/sys/module/cifs").exists():
        pytest.skip("this machine has the cifs module")
    result = aod_agent("record", tmp_path / "out.trace")
    assert result.returncode == 1
    assert "aod-agent: " in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "out.trace").exists()
