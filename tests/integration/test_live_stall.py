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
# As Linux 6.1 writes it, of the session and the tree that the test's commands have.
DEBUG_DATA = r"""Display Internal CIFS Data Structures for Debugging
---------------------------------------------------
CIFS Version 2.40
Active VFS Requests: 1

Servers: 
1) ConnectionId: 0x1 Hostname: files.example 
Number of credits: 779 Dialect 0x311
TCP status: 1 Instance: 1

	Sessions: 
	1) Address: 10.99.0.2 Uses: 1 Capability: 0x300047	Session Status: 1 
	Security type: RawNTLMSSP  SessionId: 0x7
	User: 0 Cred User: 0

	Shares: 
	0) IPC: \\files.example\IPC$ Mounts: 1 DevInfo: 0x0 Attributes: 0x0
	tid: 0x4	Maximal Access: 0x1f00a9

	1) \\files.example\data Mounts: 1 DevInfo: 0x20 Attributes: 0x1006f
	tid: 0x5	Optimal sector size: 0x200	Maximal Access: 0x1f01ff

	MIDs: 
%s--
"""  # noqa: W291
PENDING = "\tState: 2 com: %d pid: 4711 cbdata: 00000000a5a5a5a5 mid %d\n\n"
MOUNTINFO = r"231 27 0:41 / /mnt/data rw - cifs //files.example/data rw" + "\n"


class Proc:
    """A directory with the files that the kernel would show."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._debug_data = root / "fs/cifs/DebugData"
        self._debug_data.parent.mkdir(parents=True)
        (root / "1").mkdir()
        (root / "1/mountinfo").write_text(MOUNTINFO)
        self.list_pending()

    def list_pending(self, *commands: tuple[int, int]) -> None:
        """Have DebugData list these, by command and mid."""
        self._debug_data.write_text(DEBUG_DATA % "".join(PENDING % c for c in commands))

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
    proc.list_pending((WRITE, 41))
    agent.kernel.enter(WRITE, mid=41)
    wait_until(lambda: triggers(agent) >= 3, "it is seen to hang again and again")
    agent.kernel.finish(WRITE, mid=41)
    wait_until(lambda: bell_is_armed(agent), "nothing is under way any more")
    wait_until(lambda: agent.status()["collections"]["running"] == 0, "all is collected")
    (manifest,) = manifests(agent)
    assert manifest["type"] == "stall"
    assert r"SMB2_WRITE on \\files.example\data: no answer for " in manifest["reason"]
    assert "not confirmed" not in manifest["reason"]
    assert manifest["trigger"]["place"] == {
        "server": "files.example",
        "share": r"\\files.example\data",
        "mount_points": ["/mnt/data"],
    }
    assert manifest["trigger"]["worst_ns"] / 1e9 >= STALL_SEC
    assert manifest["incident"]["cause"] == "files.example"


def test_a_leftover_that_the_kernel_does_not_list_is_forgotten(
    agent: LiveAgent, proc: Proc
) -> None:
    proc.list_pending((WRITE, 42), (READ, 41))  # not this command, not this mid
    agent.kernel.enter(WRITE, mid=41)
    asked = agent.source.asked
    wait_until(lambda: agent.source.asked > asked, "the kernel's list is asked for")
    wait_until(lambda: bell_is_armed(agent), "the leftover is not waited for")
    assert len(agent.kernel.unanswered()) == 1
    asked = agent.source.asked
    unchanged_in_silence(lambda: (agent.controller.watcher.beats, agent.source.asked))
    assert (triggers(agent), manifests(agent)) == (0, [])
    # And it hides no other.
    proc.list_pending((READ, 43))
    agent.kernel.enter(READ, mid=43)
    wait_until(lambda: len(manifests(agent)) == 1, "a bundle for the next one")
    assert manifests(agent)[0]["trigger"]["violations"] == 1
    assert agent.source.asked > asked


def test_a_hang_is_reported_unconfirmed_when_debug_data_hangs_too(
    agent: LiveAgent, proc: Proc
) -> None:
    proc.block_debug_data()
    agent.kernel.enter(WRITE, mid=41)
    wait_until(lambda: triggers(agent) >= 2, "it is seen to hang")
    agent.kernel.finish(WRITE, mid=41)
    wait_until(lambda: bell_is_armed(agent), "nothing is under way any more")
    wait_until(lambda: agent.status()["collections"]["running"] == 0, "all is collected")
    (manifest,) = manifests(agent)
    fault = f"not confirmed: {proc.root}/fs/cifs/DebugData did not answer within 1 s"
    assert fault in manifest["reason"]
    # Who that is was known before.
    assert manifest["incident"]["cause"] == "files.example"


@pytest.mark.parametrize("under_way", [[], [CHANGE_NOTIFY]], ids=["nothing", "change_notify"])
def test_nothing_happens_and_nobody_wakes(
    agent: LiveAgent, proc: Proc, under_way: list[int]
) -> None:
    waiting = [(command, agent.kernel.next_mid()) for command in under_way]
    proc.list_pending(*waiting)
    for command, mid in waiting:
        agent.kernel.enter(command, mid)
    wait_until(lambda: bell_is_armed(agent), "the bell is armed")
    controller, source = agent.controller, agent.source
    unchanged_in_silence(lambda: (controller.dispatcher.beats, controller.watcher.beats))
    assert triggers(agent) == 0
    asked = source.asked
    agent.kernel.enter(READ, agent.kernel.next_mid())
    wait_until(lambda: source.asked > asked, "but a command that hangs is noticed")
