"""A loader that dies, is silent, hangs or talks nonsense: named, and cleaned up after."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from agent.kernel.probe import load_probe
from bpf import abi
from tests.ebpf_host import wait_until
from tests.loader_faults import fault_of


def stand_in(code: str) -> tuple[str, ...]:
    """A loader made of a few lines; ``channel`` is its end of the socket."""
    head = (
        "import json, os, signal, socket, sys, time\n"
        "channel = socket.socket(fileno=int(sys.argv[sys.argv.index('--socket') + 1]))\n"
    )
    return (sys.executable, "-c", head + code)


def test_loader_ended_by_a_signal_leaves_its_last_words() -> None:
    code = "os.write(2, b'last words'); os.kill(os.getpid(), signal.SIGSEGV)"
    fault = fault_of(*stand_in(code))
    assert fault.kind == "loader_died"
    assert "SIGSEGV" in fault.message
    assert "last words" in fault.message


def test_loader_that_crashes_shows_its_traceback() -> None:
    fault = fault_of(*stand_in("raise RuntimeError('oh no')"))
    assert fault.kind == "loader_died"
    assert "oh no" in fault.message


def test_silent_loader() -> None:
    assert fault_of(*stand_in("")).kind == "loader_silent"


@pytest.mark.parametrize("code", ["time.sleep(600)", "channel.close(); time.sleep(600)"])
def test_slow_loader_is_killed_with_its_children(tmp_path: Path, code: str) -> None:
    pids = tmp_path / "pids"
    fork = f"os.fork()\nwith open({str(pids)!r}, 'a') as file: file.write(f'{{os.getpid()}}\\n')\n"
    assert fault_of(*stand_in(fork + code), timeout_sec=2).kind == "timeout"
    started = pids.read_text().split()
    assert len(started) == 2
    wait_until(lambda: not any(runs(pid) for pid in started), "both are dead")


def runs(pid: str) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize(
    "code",
    [
        "channel.send(b'\\x00\\xff')",
        "channel.send(b'[1, 2]')",
        "channel.send(b'{}')",
        "channel.send(b'\\x20' * 150_000)",
        "channel.send(b'{\"fault\": 3}')",
        "channel.send(b'{\"layout\": 5}')",
        "socket.send_fds(channel, [b'no'], [0, 1, 2])",
        "socket.send_fds(channel, [b'{}'], [0] * 200)",
    ],
)
def test_garbage_is_refused(code: str) -> None:
    assert fault_of(*stand_in(code)).kind == "garbage"


@pytest.mark.parametrize(
    "maps",
    [
        {},
        {"settings": {"fd": 0, "value_size": 768, "max_entries": 1}},
        {"settings": {"fd": 9, "value_size": 768, "max_entries": 1}},
        {"settings": {"fd": 0, "value_size": 4, "max_entries": 1}},
    ],
)
def test_maps_that_are_none_are_refused(maps: dict[str, dict[str, int]]) -> None:
    message = json.dumps({"layout": abi.layout(), "maps": maps})
    code = f"socket.send_fds(channel, [{message.encode()!r}], [0])"
    assert fault_of(*stand_in(code)).kind == "garbage"


def test_loader_that_cannot_be_started() -> None:
    assert fault_of("/nonexistent/python").kind == "loader_died"


@pytest.mark.parametrize("pages", [0, -1, 3, 255])
def test_ring_size_must_be_a_power_of_two(pages: int) -> None:
    with pytest.raises(ValueError, match="power of two"):
        load_probe(ring_pages=pages)
