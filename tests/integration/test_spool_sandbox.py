"""The spool seen from inside a service: everything else of the file system is read-only."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.storage.spool import Spool

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="making a mount namespace needs root")

# What systemd makes of ProtectSystem=strict and ReadWritePaths=, for one directory.
SERVICE = """
import subprocess, sys
from pathlib import Path
from agent.storage.spool import Spool

outside, *writable = sys.argv[1:]
for path in (outside, *writable):
    subprocess.run(["mount", "--bind", path, path], check=True)
subprocess.run(["mount", "-o", "remount,bind,ro", outside], check=True)
for root in sys.stdin:
    try:
        Spool(Path(root.strip())).prepare()
        print("prepared", flush=True)
    except OSError as error:
        print(type(error).__name__, error, flush=True)
"""


class Service:
    """A process in a mount namespace of its own; ``outside`` is read-only there."""

    def __init__(self, outside: Path, writable: list[Path]) -> None:
        command = ["unshare", "--mount", "--propagation", "slave", sys.executable, "-c", SERVICE]
        self._process = subprocess.Popen(
            [*command, outside, *writable],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )

    def prepare(self, spool: Spool) -> str:
        """What became of `Spool.prepare` in there."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(f"{spool.root}\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().strip()

    def close(self) -> None:
        self._process.communicate(timeout=20)


StartService = Callable[..., Service]


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    spool = Spool(tmp_path / "log" / "aod")
    spool.root.mkdir(parents=True)
    return spool


@pytest.fixture
def start(tmp_path: Path) -> Iterator[StartService]:
    if subprocess.run(["unshare", "--mount", "true"], check=False).returncode != 0:
        pytest.skip("this machine does not let root make a mount namespace")
    services = []

    def start_service(*writable: Path) -> Service:
        services.append(Service(tmp_path, list(writable)))
        return services[-1]

    yield start_service
    for service in services:
        service.close()


def test_an_emptied_spool_is_made_anew(spool: Spool, start: StartService) -> None:
    service = start(spool.root)
    assert service.prepare(spool) == "prepared"
    for directory in (spool.batches, spool.staging):
        shutil.rmtree(directory)
    assert service.prepare(spool) == "prepared"
    assert stat.S_IMODE(spool.batches.stat().st_mode) == 0o3770
    assert spool.staging.is_dir()


def test_a_removed_spool_needs_a_restart_and_says_so(spool: Spool, start: StartService) -> None:
    service = start(spool.root)
    assert service.prepare(spool) == "prepared"
    shutil.rmtree(spool.root)
    removed = service.prepare(spool)
    spool.root.mkdir()
    made_outside = service.prepare(spool)
    for answer in (removed, made_outside):
        assert answer.startswith(f"ReadOnlySpoolError {spool.root}")
        assert "a restart" in answer
    assert start(spool.root).prepare(spool) == "prepared"


def test_a_removed_spool_is_made_anew_where_its_parent_is_writable(
    spool: Spool, start: StartService
) -> None:
    service = start(spool.root.parent)
    assert service.prepare(spool) == "prepared"
    shutil.rmtree(spool.root)
    assert service.prepare(spool) == "prepared"
    assert spool.batches.is_dir()


def test_a_spool_outside_what_may_be_written_names_the_cure(
    spool: Spool, start: StartService
) -> None:
    service = start()
    assert f"ReadWritePaths={spool.root}" in service.prepare(spool)
    spool.prepare()
    assert f"ReadWritePaths={spool.root}" in service.prepare(spool), "also when all is there"
