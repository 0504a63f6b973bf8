"""The kernel's memory at any moment of a trace; and a hang replayed from one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from agent.cifs.state import CifsTexts
from agent.config_loader import load_config
from agent.configuration.schema import Config
from agent.events.trace import Look, Trace, TraceError, create_trace, read_trace
from agent.events.trace_memory import TraceMemory
from agent.replay import replay_trace
from agent.service.stop_signal import StopSignal
from bpf import abi

SECOND = 1_000_000_000
READ, WRITE = 8, 9
SESSION = 0x1122
CONFIG = Path(__file__).parents[2] / "config" / "config.yaml"
DEBUG_DATA = """\
Servers:
1) ConnectionId: 0x1 Hostname: files
TCP status: 1 Instance: 1

	Sessions:
	1) Address: 10.0.0.7 Uses: 1 Capability: 0x300047	Session Status: 1
	Security type: RawNTLMSSP  SessionId: 0x1122
	User: 0 Cred User: 0

	Shares:
	0) IPC: \\\\files\\IPC$ Mounts: 1 DevInfo: 0x0 Attributes: 0x0
	PathComponentMax: 0 Status: 1 type: 0 Serial Number: 0x0
	Share Capabilities: None	Share Flags: 0x0
	tid: 0x1	Maximal Access: 0x11f01ff

	1) \\\\files\\projects Mounts: 1 DevInfo: 0x20 Attributes: 0x1006f
	PathComponentMax: 255 Status: 1 type: DISK Serial Number: 0x1
	Share Capabilities: None Aligned, Partition Aligned,	Share Flags: 0x0
	tid: 0x5	Optimal sector size: 0x200	Maximal Access: 0x1f01ff

	MIDs:
{pending}"""
MOUNTS = "40 25 0:39 / /mnt/projects rw,relatime - cifs //files/projects rw,vers=3.1.1\n"


def answered(*commands: tuple[int, float, float]) -> np.ndarray:
    """Events of (mid, start, end) in seconds."""
    events = np.zeros(len(commands), abi.EVENT)
    for event, (mid, start, end) in zip(events, commands, strict=True):
        event["mid"], event["session_id"], event["tree_id"] = mid, SESSION, 5
        event["smbcommand"], event["tool"], event["task"] = READ, 1, b"dd"
        event["cmd_end_time_ns"] = int(end * SECOND)
        event["metric_latency_ns"] = int(end * SECOND) - int(start * SECOND)
    return events[np.argsort(events["cmd_end_time_ns"], kind="stable")]


def look(time: float, *waiting: tuple[int, float], listed: bool = True, fault: str = "") -> Look:
    """What a recording saw at ``time``: commands of (mid, start), listed as pending or not."""
    slots = np.zeros(len(waiting), abi.INFLIGHT)
    for slot, (mid, start) in zip(slots, waiting, strict=True):
        slot["mid"], slot["session_id"], slot["tree_id"] = mid, SESSION, 5
        slot["smbcommand"], slot["start_ns"], slot["task"] = WRITE, int(start * SECOND), b"cp"
    lines = [
        f"\tState: 2 com: {WRITE} pid: 1 cbdata: 0000000000000000 mid {mid}\n" for mid, _ in waiting
    ]
    text = "" if fault else DEBUG_DATA.format(pending="".join(lines) if listed else "")
    return Look(int(time * SECOND), slots, CifsTexts(text, MOUNTS, fault))


def mids(memory: TraceMemory, time: float) -> list[int]:
    return sorted(memory.inflight(int(time * SECOND))["mid"].tolist())


def test_commands_are_under_way_from_their_start_to_their_answer() -> None:
    memory = TraceMemory(Trace({}, answered((1, 1, 4), (2, 2, 3), (3, 5, 6)), 0))
    assert [mids(memory, at) for at in (0.5, 1, 2.5, 3, 4, 5.5, 7)] == [
        [], [1], [1, 2], [1], [], [3], [],
    ]  # fmt: skip
    assert memory.next_start_ns(2 * SECOND) == 5 * SECOND
    assert memory.next_start_ns(5 * SECOND) is None
    assert memory.end_ns == 6 * SECOND


def test_what_never_was_answered_is_known_from_looks_as_long_as_they_saw_it() -> None:
    looks = (look(3, (9, 2), (1, 1)), look(5, (9, 2)), look(8))
    events = answered((1, 1, 4))
    events["smbcommand"] = WRITE
    memory = TraceMemory(Trace({}, events, 0, looks))
    assert [mids(memory, at) for at in (1.5, 3, 5, 5.1)] == [[1], [1, 9], [9], []]
    assert memory.end_ns == 8 * SECOND


def test_a_lost_connection_is_no_command() -> None:
    events = answered((1, 1, 4), (7, 2, 2))
    lost = events["mid"] == 7
    events["smbcommand"][lost], events["tool"][lost] = abi.NO_COMMAND, abi.TOOL_RECONNECT
    events["session_id"][lost], events["task"][lost] = 3, b"files"
    memory = TraceMemory(Trace({}, events, 0))
    assert mids(memory, 2) == [1]
    histograms, activity = memory.totals(9 * SECOND)
    assert (histograms.sum(), activity["commands"].sum()) == (1, 1)
    assert memory.hosts() == {3: "files"}


def write_trace(path: Path, events: np.ndarray, *looks: Look) -> Path:
    with create_trace(path, {"wall_offset_ns": 0}) as writer:
        for one in looks[:1]:
            writer.write_look(one)
        writer.write(events)
        for one in looks[1:]:
            writer.write_look(one)
    return path


def test_looks_come_back_from_the_file(tmp_path: Path) -> None:
    looks = (look(3, (9, 2)), look(5, fault="no answer"))
    trace = read_trace(write_trace(tmp_path / "t", answered((1, 1, 4)), *looks))
    assert [(one.time_ns, one.texts) for one in trace.looks] == [
        (one.time_ns, one.texts) for one in looks
    ]
    assert trace.looks[0].inflight.tobytes() == looks[0].inflight.tobytes()
    assert trace.events["mid"].tolist() == [1]


def test_a_trace_of_another_release_is_refused(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("agent.events.trace.VERSION", 99)
    path = write_trace(tmp_path / "t", answered((1, 1, 4)))
    with pytest.raises(TraceError, match="version 99"):
        read_trace(path)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    loaded = load_config(CONFIG).config
    silent = {n: replace(rule, actions=()) for n, rule in loaded.guardian.anomalies.items()}
    return replace(loaded, guardian=replace(loaded.guardian, anomalies=silent))


NORMAL = [(100 + n, n / 10, n / 10 + 0.004) for n in range(1, 50)]


def replayed(config: Config, tmp_path: Path, events: np.ndarray, *looks: Look) -> list[dict]:
    path = write_trace(tmp_path / "hang.trace", events, *looks)
    return list(replay_trace(path, config, tmp_path / "spool", 0, StopSignal()).manifests)


def test_a_hang_is_found_while_it_lasts_and_named(config: Config, tmp_path: Path) -> None:
    hanging = [(900, 5.0), (901, 5.5)]
    looks = [look(0)] + [look(at, *hanging) for at in range(6, 40)]
    (manifest,) = replayed(config, tmp_path, answered(*NORMAL), *looks)
    assert manifest["anomaly"] == "hanging_commands"
    assert manifest["trigger"]["time_ns"] == 15 * SECOND
    assert manifest["reason"] == (
        r"SMB2_WRITE on \\files\projects: no answer for 10 s, asked by cp[0]"
    )
    assert manifest["trigger"]["place"] == {
        "server": "files",
        "share": r"\\files\projects",
        "mount_points": ["/mnt/projects"],
    }
    assert manifest["incident"]["cause"] == "files"


def test_a_hang_that_ends_in_a_slow_answer_is_one_incident(config: Config, tmp_path: Path) -> None:
    events = answered(*NORMAL, (900, 5.0, 20.0), (901, 5.0, 20.0))
    looks = [look(0)] + [look(at, (900, 5.0), (901, 5.0)) for at in range(6, 20)]
    events["smbcommand"][events["mid"] >= 900] = WRITE
    (manifest,) = replayed(config, tmp_path, events, *looks)
    assert manifest["type"] == "stall"
    assert manifest["trigger"]["violations"] == 2


def test_what_the_kernel_does_not_list_is_no_hang(config: Config, tmp_path: Path) -> None:
    looks = [look(at, (900, 5.0), listed=False) for at in range(40)]
    assert replayed(config, tmp_path, answered(*NORMAL), *looks) == []


def test_a_kernel_that_cannot_be_asked_is_a_sign_of_its_own(config: Config, tmp_path: Path) -> None:
    looks = [look(0)] + [look(at, (900, 5.0), fault="no answer in 1 s") for at in range(6, 40)]
    (manifest,) = replayed(config, tmp_path, answered(*NORMAL), *looks)
    assert manifest["reason"].endswith("; not confirmed: no answer in 1 s")
