"""Commands that never end, in a real kernel program: one bundle for a hang, none for a leftover,
and no wake-up while nothing happens."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from agent.cifs.debug_data import parse_debug_data
from agent.cifs.state import CifsTexts, read_texts
from agent.config_loader import load_config
from agent.events.event_source import STATE_TIMEOUT_SEC, KernelSource
from agent.kernel.probe import Probe, load_probe
from tests.ebpf_host import PRCTL_LOADER, ebpf_host, wait_until
from tests.live_agent import LiveAgent

pytestmark = pytest.mark.ebpf
__all__ = ["ebpf_host"]

READ, WRITE, CHANGE_NOTIFY = 8, 9, 15
STALL_SEC, SILENCE_SEC = 1.0, 3.0
CONFIG = f"""
watch_interval_sec: 10
aod_output_dir: %s
watcher:
  batch_max_wait_sec: 0.05
collection:
  after_sec: 0
guardian:
  anomalies:
    hanging:
      type: stall
      stall_sec: {STALL_SEC}
      actions: [mounts]
"""
SAMPLES = Path(__file__).parents[1] / "data/debug_data/6.1"
IDLE = (SAMPLES / "idle.debug_data").read_text()
HANG = (SAMPLES / "hang.debug_data").read_text()

# The share and one of the writes that hang in the second sample.
SERVER, SHARE, MOUNT_POINT = "10.99.0.2", r"\\10.99.0.2\share", "/mnt/share"
(CONNECTION,) = parse_debug_data(HANG)
SESSION, TREE = next(
    (session.session_id, share.tree_id)
    for session in CONNECTION.sessions
    for share in session.shares
    if share.unc == SHARE
)
PENDING_MID = CONNECTION.pending[0].mid
OTHER_MID = 999_999


class Proc:
    """A directory with the files that a kernel once showed."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._debug_data = root / "fs/cifs/DebugData"
        self._debug_data.parent.mkdir(parents=True)
        (root / "1").mkdir()
        (root / "1/mountinfo").write_text((SAMPLES / "hang.mountinfo").read_text())
        self.show(IDLE)

    def show(self, debug_data: str) -> None:
        """Have DebugData say this from now on."""
        self._debug_data.write_text(debug_data)

    def block_debug_data(self) -> None:
        """Whoever reads it from now on gets no answer."""
        self._debug_data.unlink()
        os.mkfifo(self._debug_data)


class SourceOfProc(KernelSource):
    """The live source, but that this machine has no cifs to tell of: it reads ``proc`` instead."""

    def __init__(self, probe: Probe, proc: Path) -> None:
        super().__init__(probe)
        self._proc = proc
        self.asked = 0

    def cifs_texts(self, at_ns: int) -> CifsTexts:
        self.asked += 1
        return read_texts(STATE_TIMEOUT_SEC, self._proc)


@pytest.fixture
def proc(tmp_path: Path) -> Proc:
    return Proc(tmp_path / "proc")


@pytest.fixture
def agent(ebpf_host: None, tmp_path: Path, proc: Proc) -> Iterator[LiveAgent]:
    file = tmp_path / "config.yaml"
    file.write_text(CONFIG % (tmp_path / "spool"))
    agent = LiveAgent(
        load_config(file).config,
        tmp_path / "run",
        load_probe(command=PRCTL_LOADER),
        partial(SourceOfProc, proc=proc.root),
    )
    wait_until(lambda: bell_is_armed(agent), "the source has been looked at")
    yield agent
    agent.controller.shutdown()


def manifests(agent: LiveAgent) -> list[dict[str, Any]]:
    return [bundle.manifest() for bundle in agent.controller.spool.finished()]


def triggers(agent: LiveAgent) -> int:
    incidents = agent.status()["incidents"]
    return int(incidents["opened"] + incidents["suppressed"])


def all_is_collected(agent: LiveAgent) -> bool:
    status = agent.status()
    made, running = status["bundles"]["made"], status["collections"]["running"]
    return bool(made >= status["incidents"]["opened"] and not running)


def bell_is_armed(agent: LiveAgent) -> bool:
    return agent.source.bell_armed()


def unchanged_in_silence(count: Callable[[], tuple[int, ...]]) -> None:
    """What ``count`` counts is at rest, and stays so."""
    wait_until(lambda: count() == (time.sleep(0.3), count())[1], "it comes to rest")
    before = count()
    time.sleep(SILENCE_SEC)
    assert count() == before


def test_a_command_without_an_answer_is_one_bundle_however_long_it_hangs(
    agent: LiveAgent, proc: Proc
) -> None:
    proc.show(HANG)
    agent.kernel.enter(WRITE, PENDING_MID, SESSION, TREE)
    wait_until(lambda: triggers(agent) >= 3, "it is seen to hang again and again")
    agent.kernel.finish(WRITE, PENDING_MID, SESSION, TREE)
    wait_until(lambda: bell_is_armed(agent), "nothing is under way any more")
    wait_until(lambda: all_is_collected(agent), "every incident has its bundle")
    (manifest,) = manifests(agent)
    assert manifest["type"] == "stall"
    assert f"SMB2_WRITE on {SHARE}: no answer for " in manifest["reason"]
    assert "not confirmed" not in manifest["reason"]
    assert manifest["trigger"]["place"] == {
        "server": SERVER,
        "share": SHARE,
        "mount_points": [MOUNT_POINT],
    }
    assert manifest["trigger"]["worst_ns"] / 1e9 >= STALL_SEC
    assert manifest["incident"]["cause"] == SERVER


def test_a_leftover_that_the_kernel_does_not_list_is_forgotten(
    agent: LiveAgent, proc: Proc
) -> None:
    proc.show(HANG)
    asked = agent.source.asked
    agent.kernel.enter(WRITE, OTHER_MID, SESSION, TREE)
    agent.kernel.enter(READ, PENDING_MID, SESSION, TREE)  # of this mid a write is pending
    wait_until(lambda: agent.source.asked > asked, "the kernel's list is asked for")
    wait_until(lambda: bell_is_armed(agent), "the leftovers are not waited for")
    assert len(agent.kernel.unanswered()) == 2
    unchanged_in_silence(lambda: (agent.controller.watcher.beats, agent.source.asked))
    assert (triggers(agent), manifests(agent)) == (0, [])
    # And they hide no other.
    agent.kernel.enter(WRITE, PENDING_MID + 1, SESSION, TREE)
    wait_until(lambda: len(manifests(agent)) == 1, "a bundle for the next one")
    assert manifests(agent)[0]["trigger"]["violations"] == 1


def test_a_hang_is_reported_unconfirmed_when_debug_data_hangs_too(
    agent: LiveAgent, proc: Proc
) -> None:
    proc.block_debug_data()
    agent.kernel.enter(WRITE, PENDING_MID, SESSION, TREE)
    wait_until(lambda: triggers(agent) >= 2, "it is seen to hang")
    agent.kernel.finish(WRITE, PENDING_MID, SESSION, TREE)
    wait_until(lambda: bell_is_armed(agent), "nothing is under way any more")
    wait_until(lambda: all_is_collected(agent), "every incident has its bundle")
    (manifest,) = manifests(agent)
    fault = f"not confirmed: {proc.root}/fs/cifs/DebugData did not answer within 1 s"
    assert fault in manifest["reason"]
    # Who that is was known before.
    assert manifest["incident"]["cause"] == SERVER


@pytest.mark.parametrize("under_way", [[], [CHANGE_NOTIFY]], ids=["nothing", "change_notify"])
def test_nothing_happens_and_nobody_wakes(
    agent: LiveAgent, proc: Proc, under_way: list[int]
) -> None:
    proc.show(HANG.replace(f" com: {WRITE} ", f" com: {CHANGE_NOTIFY} "))
    for command in under_way:
        agent.kernel.enter(command, PENDING_MID, SESSION, TREE)
    wait_until(lambda: bell_is_armed(agent), "the bell is armed")
    controller, source = agent.controller, agent.source
    unchanged_in_silence(lambda: (controller.dispatcher.beats, controller.watcher.beats))
    assert triggers(agent) == 0
    asked = source.asked
    agent.kernel.enter(READ, agent.kernel.next_mid())
    wait_until(lambda: source.asked > asked, "but a command that hangs is noticed")
