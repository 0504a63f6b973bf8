"""A file system that turns read-only under the agent, and one that is so when it starts."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.config_loader import load_config
from agent.kernel.probe import load_probe
from agent.service.status_server import query_status
from agent.storage.spool import Spool
from tests.ebpf_host import PRCTL_LOADER, ebpf_host
from tests.evidence import wait_until
from tests.live_agent import CONFIG, LiveAgent

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting a tmpfs needs root")
__all__ = ["ebpf_host"]

ROOT = Path(__file__).parents[2]
READ = 8


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs."""
    path = tmp_path / "disk"
    path.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "none", path], check=False)
    if mounted.returncode != 0:
        pytest.skip("this machine does not let root mount a tmpfs")
    yield path
    subprocess.run(["umount", path], check=True)


@contextmanager
def read_only(disk: Path) -> Iterator[None]:
    """A read-only view lies over the file system: unlike a remount, that waits for no writer, as
    the kernel waits for none when a device fails."""
    view = disk.with_name("view")
    view.mkdir()
    subprocess.run(["mount", "--bind", disk, view], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", view], check=True)
    subprocess.run(["mount", "--bind", view, disk], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", disk, view], check=True)
        view.rmdir()


@pytest.fixture
def config(disk: Path, tmp_path: Path) -> Path:
    """The shipped configuration, with its spool on the disk, which may be filled."""
    text = CONFIG.read_text().replace("/var/log/aod", str(disk / "spool"))
    path = tmp_path / "config.yaml"
    path.write_text(text.replace("min_free_mb: 200", "min_free_mb: 0"))
    return path


@contextmanager
def run_agent(config: Path) -> Iterator[subprocess.Popen[str]]:
    """``aod-agent run``, killed at the end if it has not ended."""
    with subprocess.Popen(
        [sys.executable, "-m", "agent.cli", "run", "--config", str(config)],
        env={**os.environ, "RUNTIME_DIRECTORY": str(config.parent / "run")},
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    ) as agent:
        try:
            yield agent
        finally:
            agent.kill()


def capture_command(runtime: Path, seconds: int) -> list[str]:
    options = ["--runtime-dir", str(runtime), "--duration", str(seconds), "--json"]
    return [sys.executable, "-m", "agent.cli", "capture", *options]


def capture(runtime: Path) -> subprocess.CompletedProcess[str]:
    command = capture_command(runtime, 0)
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=120, cwd=ROOT
    )


def counts(status: dict[str, Any]) -> dict[str, int]:
    """Of collections and of bundles, those that are not 0."""
    fates = {name: status["collections"][name] for name in ("collected", "failed", "refused")}
    bundles = {name: status["bundles"][name] for name in ("made", "pending", "evicted")}
    return {name: number for name, number in {**fates, **bundles}.items() if number}


def test_the_agent_lives_through_it_and_goes_on(config: Path, disk: Path, tmp_path: Path) -> None:
    runtime, one = tmp_path / "run", {"collected": 1, "made": 1, "pending": 1}
    with run_agent(config) as agent:
        wait_until((runtime / "agent.sock").exists)
        assert capture(runtime).returncode == 0
        wait_until(lambda: counts(query_status(runtime)) == one)
        with read_only(disk):
            for failed in (1, 2):
                refused = capture(runtime)
                assert (refused.returncode, refused.stdout) == (1, "")
                assert "no bundle: OSError: [Errno 30] Read-only file system" in refused.stderr
                assert f"'{disk}/spool/" in refused.stderr
                status = query_status(runtime)
                assert counts(status) == {**one, "failed": failed}
                assert "Read-only file system" in status["collections"]["last_failure"]
        after = capture(runtime)
        assert after.returncode == 0, after.stderr
        assert Path(json.loads(after.stdout)["path"]).exists()
        two = {**dict.fromkeys(one, 2), "failed": 2}
        wait_until(lambda: counts(query_status(runtime)) == two)
        status = query_status(runtime)
        assert status["components"]["LogCollector"]["last_fault"] == ""
        assert status["components"]["SpaceWatcher"]["last_fault"] == ""
        agent.terminate()
        assert agent.wait(60) == 0
    assert list(Spool(disk / "spool").staging.iterdir()) == []


def test_what_was_begun_before_becomes_a_bundle_at_the_next_start(
    config: Path, disk: Path, tmp_path: Path
) -> None:
    runtime, spool = tmp_path / "run", Spool(disk / "spool")
    with run_agent(config) as agent:
        wait_until((runtime / "agent.sock").exists)
        with subprocess.Popen(
            capture_command(runtime, 3600), cwd=ROOT, stderr=subprocess.PIPE, text=True
        ) as long_one:
            wait_until(lambda: any(spool.staging.glob("*/manifest.json")))
            try:
                with read_only(disk):
                    agent.terminate()
                    _, errors = agent.communicate(timeout=60)
                    _, told = long_one.communicate(timeout=60)
            finally:
                long_one.kill()
    assert long_one.returncode == 1
    # Whether it hears of the failure or of the agent's end is a matter of which look comes first.
    assert re.search(r"no bundle: (the agent ended meanwhile|OSError: \[Errno 30\])", told)
    assert agent.returncode == 0
    assert "failed: [Errno 30] Read-only file system" in errors
    assert spool.counts().made == 0
    (staging,) = spool.staging_directories()
    with run_agent(config) as agent:
        wait_until((runtime / "agent.sock").exists)
        agent.terminate()
        assert agent.wait(60) == 0
    assert [bundle.id for bundle in spool.finished()] == [staging.name]
    assert spool.finished()[0].manifest()["interrupted"] is True
    assert list(spool.staging.iterdir()) == []


@pytest.fixture
def live(ebpf_host: None, config: Path, tmp_path: Path) -> Iterator[LiveAgent]:
    """An agent over a kernel program."""
    loaded = load_config(config).config
    brief = replace(loaded.watcher, incident_quiet_sec=2)
    loaded = replace(loaded, watch_interval_sec=1, watcher=brief)
    agent = LiveAgent(loaded, tmp_path / "run", load_probe(command=PRCTL_LOADER))
    yield agent
    agent.controller.shutdown()


@pytest.mark.ebpf
def test_an_incident_of_that_time_fails_alone_and_the_next_has_its_bundle(
    live: LiveAgent, disk: Path
) -> None:
    with read_only(disk):
        live.slow(READ, 1.5)
        wait_until(lambda: live.status()["collections"]["failed"] == 1)
        status = live.status()
        assert counts(status) == {"failed": 1}
        assert status["incidents"]["opened"] == 1
        assert {c["last_fault"] for c in status["components"].values()} == {""}
    wait_until(lambda: not live.status()["incidents"]["open"])
    live.slow(READ, 1.5)
    all_told = {"failed": 1, "collected": 1, "made": 1, "pending": 1}
    wait_until(lambda: counts(live.status()) == all_told)
    assert live.status()["incidents"]["opened"] == 2


def there(disk: Path) -> None:
    Spool(disk / "spool").prepare()


def missing(disk: Path) -> None:
    pass


@pytest.mark.parametrize("make", [there, missing])
def test_it_does_not_start_there_and_says_why(
    config: Path, disk: Path, make: Callable[[Path], None]
) -> None:
    make(disk)
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    with run_agent(config) as agent:
        _, errors = agent.communicate(timeout=60)
    assert agent.returncode == 1
    assert f"aod-agent: cannot start: {disk}/spool is read-only for this process" in errors
    assert f"ReadWritePaths={disk}/spool" in errors
