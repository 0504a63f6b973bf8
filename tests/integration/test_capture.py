"""A capture on demand, typed by a person: with a running agent, and without one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.service.status_server import give_order
from agent.storage.spool import Spool, SpooledBundle
from tests.bundles import members
from tests.evidence import wait_until

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "config" / "config.yaml"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG.read_text().replace("/var/log/aod", str(tmp_path / "spool")))
    return path


@pytest.fixture
def sleeper() -> Iterator[int]:
    """A process to look at."""
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process.pid
        process.kill()


def arguments(command: str, config: Path, *more: object) -> list[str]:
    return [sys.executable, "-m", "agent.cli", command, "--config", str(config), *map(str, more)]


def capture(config: Path, *more: object) -> subprocess.CompletedProcess[str]:
    command = arguments("capture", config, "--runtime-dir", config.parent / "run", *more)
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=120, cwd=ROOT
    )


def only_bundle(tmp_path: Path) -> SpooledBundle:
    (bundle,) = Spool(tmp_path / "spool").finished()
    return bundle


def check(bundle: SpooledBundle, sleeper: int) -> None:
    files = members(bundle)
    manifest = bundle.manifest()
    assert (manifest["type"], manifest["label"]) == ("capture", "slow upload")
    assert f"process {sleeper}: slow upload" in manifest["reason"]
    samples = [json.loads(line) for line in files["procstat.jsonl"].splitlines()]
    assert {row["pid"] for row in samples} == {sleeper}
    assert len(samples) >= 2
    assert samples[0]["comm"] == "sleep"
    assert f"/{sleeper}/task/{sleeper}/comm".encode() in files["stacks.log"]
    assert b"Linux" in files["osinfo.log"]
    labels = map(json.loads, files["labels.jsonl"].splitlines())
    phases = {row["phase"]: row["t_mono_ns"] for row in labels}
    assert phases["end"] - phases["trigger"] >= 2e9, "it lasts as long as asked for"
    assert phases["trigger"] <= samples[0]["t_mono_ns"] <= phases["end"]


def test_without_an_agent_the_command_is_one(config: Path, tmp_path: Path, sleeper: int) -> None:
    result = capture(config, "--duration", 2, "--target-pid", sleeper, "--label", "slow upload")
    assert result.returncode == 0, result.stderr
    bundle = only_bundle(tmp_path)
    assert result.stdout.splitlines()[0] == str(bundle.archive)
    assert "AOD_EVENT" not in result.stderr
    check(bundle, sleeper)


def test_a_running_agent_makes_it_and_goes_on(config: Path, tmp_path: Path, sleeper: int) -> None:
    environment = {**os.environ, "RUNTIME_DIRECTORY": str(tmp_path / "run")}
    with subprocess.Popen(arguments("run", config), cwd=ROOT, env=environment) as agent:
        try:
            wait_until((tmp_path / "run" / "agent.sock").exists)
            more = ("--duration", 2, "--target-pid", sleeper, "--label", "slow upload", "--json")
            result = capture(config, *more)
            assert result.returncode == 0, result.stderr
            bundle = only_bundle(tmp_path)
            assert json.loads(result.stdout)["path"] == str(bundle.archive)
            check(bundle, sleeper)
            assert capture(config, "--duration", 0).returncode == 0
            assert agent.poll() is None
        finally:
            agent.terminate()
    assert Spool(tmp_path / "spool").counts().made == 2


def test_ended_early_it_still_gives_a_bundle(config: Path, tmp_path: Path) -> None:
    command = arguments("capture", config, "--runtime-dir", tmp_path, "--duration", 3000)
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        wait_until(lambda: any((tmp_path / "spool" / "staging").glob("*/manifest.json")), 60)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert output.splitlines()[0] == str(only_bundle(tmp_path).archive)


def test_what_cannot_be_is_told_before_anything_starts(config: Path, tmp_path: Path) -> None:
    result = capture(config, "--target-pid", 1 << 22 | 1)
    assert (result.returncode, result.stdout) == (2, "")
    assert "there is no process 4194305" in result.stderr
    assert not (tmp_path / "spool").exists()


def test_a_second_capture_waits_for_nobody_and_is_refused(config: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "RUNTIME_DIRECTORY": str(tmp_path / "run")}
    with subprocess.Popen(arguments("run", config), cwd=ROOT, env=environment) as agent:
        try:
            wait_until((tmp_path / "run" / "agent.sock").exists)
            first = arguments(
                "capture", config, "--runtime-dir", tmp_path / "run", "--duration", 600
            )
            with subprocess.Popen(first, cwd=ROOT, stderr=subprocess.PIPE, text=True) as capturing:
                wait_until(lambda: any((tmp_path / "spool" / "staging").glob("*/manifest.json")))
                second = capture(config, "--duration", 1)
                assert (second.returncode, second.stdout) == (1, "")
                assert "another capture is under way" in second.stderr
                unknown = give_order(tmp_path / "run", "capture-state", {"id": "01HF"})
                assert unknown["state"] == "failed"
                agent.terminate()
                _, told = capturing.communicate(timeout=60)
            assert capturing.returncode in {0, 1}, "it may have heard of the end, or not"
            assert "Traceback" not in told
        finally:
            agent.terminate()
    assert Spool(tmp_path / "spool").counts().made == 1, "the agent's, and none made again"
