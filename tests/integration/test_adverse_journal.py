"""A journal that is far larger than a bundle, and one that has no end."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.collection.log_collector import LogCollector
from agent.collection.quick_actions import QUICK_ACTIONS
from agent.collection.scene import Roots
from agent.collection.surroundings import HostFacts, Surroundings
from agent.configuration.schema import ActionLimits, CollectionConfig
from agent.service.audit import Audit
from agent.storage.spool import Spool, SpooledBundle
from tests.bundles import members
from tests.evidence import make_action, wait_until

HOST = HostFacts("client-7", "6.1.0-test", "9.9.9")
MEGABYTE = 1 << 20
LIMIT_MB = 4
# Beyond what the collection of a small journal has taken.
MORE_MEMORY_MB = 8
ACTIONS = ("debugdata", "stats", "mounts", "journalctl", "syslogs")
LINE = "[12345.678901] client-7 kernel: CIFS: VFS: a line of the journal, of the usual length"
SMALL = f"echo first; echo '{LINE}'; echo last"
# Of a file of 64 MB: faster than anything that makes up lines.
HUGE = "echo first; cat $(yes lines | head -160); echo; echo last"
ENDLESS = f"echo first; exec yes '{LINE}'"
OTHERS = {
    "debug_data.log": ("proc/fs/cifs/DebugData", "Display Internal CIFS Data\n"),
    "cifsstats.log": ("proc/fs/cifs/Stats", "Resources in use\n"),
    "mounts.log": ("proc/1/mounts", "//server/share /mnt cifs rw 0 0\n"),
    "syslogs.log": ("log/syslog", "a line of the syslog\n"),
}


@pytest.fixture
def roots(tmp_path: Path) -> Roots:
    """A host with a journal."""
    files = {**dict(OTHERS.values()), "log/journal/machine/system.journal": ""}
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    return Roots(*(tmp_path / name for name in ("proc", "sys", "etc", "log", "run")))


@pytest.fixture
def collect(
    roots: Roots, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str, float], SpooledBundle]]:
    """Makes a bundle with the output of the shell script given as the journal, which may take so
    many seconds; the agent's part is one collector for all."""
    program = tmp_path / "bin" / "journalctl"
    program.parent.mkdir()
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    spool = Spool(tmp_path / "spool")
    spool.prepare()
    collector = LogCollector(
        spool,
        CollectionConfig(after_sec=0),
        Audit(enabled=False),
        Surroundings(HOST, roots, QUICK_ACTIONS, tmp_path / "pseudonyms.json"),
    )

    def collect(script: str, seconds: float) -> SpooledBundle:
        program.write_text(f"#!/bin/sh\ncd {tmp_path}\n{script}\n")
        program.chmod(0o755)
        limits = {"journalctl": ActionLimits(seconds, LIMIT_MB)}
        collector.reconfigure(CollectionConfig(after_sec=0, limits=limits))
        order = make_action(actions=ACTIONS)
        collector.submit(order)
        wait_until(lambda: spool.was_made(order.id), seconds + 60)
        (bundle,) = [one for one in spool.finished() if one.id == order.id]
        return bundle

    thread = threading.Thread(target=collector.run)
    thread.start()
    yield collect
    collector.stop()
    thread.join(60)


def memory_mb(field: str) -> float:
    """VmRSS: what this process has now; VmHWM: the most it had."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{field}:"))


def forget_peak() -> None:
    """The most from now on: proc_pid_clear_refs(5)."""
    Path("/proc/self/clear_refs").write_text("5")


def test_of_ten_gigabytes_beginning_and_end_are_kept(
    collect: Callable[..., SpooledBundle], tmp_path: Path
) -> None:
    with (tmp_path / "lines").open("wb") as file:
        file.writelines([f"{LINE}\n".encode() * 1_000] * 800)
        file.truncate(64 * MEGABYTE)
    collect(SMALL, 60)
    forget_peak()
    before_mb = memory_mb("VmRSS")
    assert memory_mb("VmHWM") < before_mb + 1
    bundle = collect(HUGE, 400)
    assert memory_mb("VmHWM") - before_mb < MORE_MEMORY_MB
    results, files = opened(bundle)
    assert (results["journalctl"]["status"], results["journalctl"]["cut"]) == ("cut", True)
    text = files["journalctl.log"]
    assert LIMIT_MB * MEGABYTE * 0.99 < len(text) <= LIMIT_MB * MEGABYTE
    lines = text.decode().splitlines()
    assert (lines[0], lines[-1]) == ("first", "last")
    (cut,) = (line for line in lines if "bytes cut here" in line)
    assert int(cut.split()[1].replace(",", "")) + len(text) > 10 << 30
    check_others(results, files)


def test_one_without_an_end_is_ended(collect: Callable[..., SpooledBundle]) -> None:
    results, files = opened(collect(ENDLESS, 2))
    assert (results["journalctl"]["status"], results["journalctl"]["cut"]) == ("timed_out", True)
    text = files["journalctl.log"]
    assert LIMIT_MB * MEGABYTE * 0.99 < len(text) <= LIMIT_MB * MEGABYTE
    assert text.startswith(b"first\n")
    check_others(results, files)


def opened(bundle: SpooledBundle) -> tuple[dict[str, Any], dict[str, bytes]]:
    """What became of each action, by name; and the files."""
    results = {result["name"]: result for result in bundle.manifest()["actions"]}
    return results, members(bundle)


def check_others(results: dict[str, Any], files: dict[str, bytes]) -> None:
    """The actions beside it are whole."""
    others = {name: result["status"] for name, result in results.items() if name != "journalctl"}
    assert others == {name: "ok" for name in ACTIONS if name != "journalctl"}
    assert {name: files[name].decode() for name in OTHERS} == {
        name: content for name, (_, content) in OTHERS.items()
    }
