"""The kernel program on the real SMB client: a lost connection, the bell, the activity."""

from __future__ import annotations

import json
import re
from typing import Any

from bpf import abi
from tests.vm.conftest import MOUNT_POINT
from tests.vm.install import Installation
from tests.vm.machine import VirtualMachine
from tests.vm.smb_share import SERVER, SmbShare

READY, STOP = "/run/reconnect-watched", "/run/reconnect-seen"
WATCH = f"""
import json, time
from pathlib import Path
import numpy as np
from agent.events.activity import commands_between
from agent.events.event_source import KernelSource
from agent.events.flight_recorder import FlightRecorder
from agent.kernel.probe import load_probe
from bpf import abi

source, recorder = KernelSource(load_probe()), FlightRecorder(1024)
settings = np.zeros(1, abi.SETTINGS)
settings["reconnects"] = 1
source.apply(settings)
source.arm_bell(0)
started = source.clock_ns()
Path("{READY}").touch()
while not Path("{STOP}").exists():
    time.sleep(0.1)
while source.drain(recorder):
    pass
snapshot = source.snapshot()
records = recorder.view(0, recorder.appended)
print(json.dumps({{
    "description": snapshot.source,
    "hosts": {{str(number): name for number, name in snapshot.hosts.items()}},
    "records": [[record[name].item() for name in ("tool", "smbcommand", "session_id")]
                + [record["task"].decode()] for record in records],
    "by_activity": commands_between(snapshot.activity, started, source.clock_ns()).tolist(),
    "by_histogram": snapshot.histograms.sum(axis=1).tolist(),
}}))
"""


def connection(vm: VirtualMachine) -> tuple[int, int]:
    """The number of the mount's connection, and how often it was made again."""
    text = vm.run(["cat", "/proc/fs/cifs/DebugData"]).stdout
    number = re.search(r"ConnectionId: (0x[0-9a-f]+) Hostname: " + re.escape(SERVER), text)
    instance = re.search(r"TCP status: 1 Instance: (\d+)", text)
    assert number, text
    assert instance, text
    return int(number[1], 16), int(instance[1])


def lose_the_server(vm: VirtualMachine, share: SmbShare) -> dict[str, Any]:
    """What the agent's side saw while the server died and came back."""
    watcher = vm.start(["/opt/aod/current/bin/python", "-c", WATCH])
    vm.wait_until(["test", "-e", READY])
    with share.server_killed():
        vm.wait_until("grep -q 'TCP status: 3' /proc/fs/cifs/DebugData")
    vm.wait_until(["touch", f"{MOUNT_POINT}/found-again"])
    vm.run(["touch", STOP])
    output, complaint = watcher.communicate(timeout=60)
    vm.run(["rm", READY, STOP])
    assert watcher.returncode == 0, complaint
    seen: dict[str, Any] = json.loads(output)
    return seen


def test_lost_connection_is_reported_with_its_server(
    vm: VirtualMachine, share: SmbShare, installation: Installation
) -> None:
    number, before = connection(vm)
    seen = lose_the_server(vm, share)
    _, after = connection(vm)

    assert seen["description"]["reconnect"] == {"attached": True, "reason": ""}
    assert seen["hosts"] == {str(number): SERVER}
    lost = [record for record in seen["records"] if record[0] == abi.TOOL_RECONNECT]
    assert lost == [[abi.TOOL_RECONNECT, abi.NO_COMMAND, number, SERVER]] * len(lost)
    # A dying server may accept a connection once more, only to lose it.
    assert len(lost) == after - before >= 1

    others = [record for record in seen["records"] if record not in lost]
    assert others == [[abi.TOOL_BELL, abi.NO_COMMAND, 0, ""]], "the bell was armed once"
    assert sum(seen["by_histogram"]) > 0
    assert seen["by_activity"] == seen["by_histogram"]
