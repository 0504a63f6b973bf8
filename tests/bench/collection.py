"""A whole collection of a real incident in the virtual machine: how long, and how large the agent.

The service is the installed one with every action that is on by default.
"""

from __future__ import annotations

import json
import os
import statistics
from typing import Any

from tests.bench.figure import Figure
from tests.vm.image import image_for
from tests.vm.install import install
from tests.vm.machine import VirtualMachine
from tests.vm.service import AGENT, AGENT_CONFIG, COMMAND, run_named
from tests.vm.smb_share import SmbShare

INCIDENTS = 5
MOUNT_POINT, BATCHES = "/mnt/share", "/var/log/aod/batches"
# Refused opens: the server and the way to it are well, so nothing but the collection takes time.
CONFIG = AGENT_CONFIG.replace("incident_quiet_sec: 15", "incident_quiet_sec: 1") + (
    "collection:\n  after_sec: 0\n"
)
# The marker is written last: its time less the trigger's is all of it, the CPU's queue included.
TELL = (
    "import json, os, sys, datetime\n"
    f"for name in sorted(os.listdir({BATCHES!r})):\n"
    "    if name.endswith('.done'):\n"
    f"        path = os.path.join({BATCHES!r}, name)\n"
    "        manifest = json.load(open(path))\n"
    "        created = datetime.datetime.fromisoformat(manifest['created']).timestamp()\n"
    "        print(json.dumps([os.stat(path).st_mtime - created, manifest['collection']]))\n"
)


def measure() -> list[Figure]:
    """One incident after the other; the first one loads the collector's code."""
    with VirtualMachine(image_for(os.environ.get("AOD_VM_KERNEL", "6.1"))) as vm:
        share = SmbShare(vm)
        share.set_up()
        share.mount(MOUNT_POINT)
        install(vm)
        vm.write("/etc/aod/config.yaml", CONFIG, group="aod")
        vm.run(["systemctl", "start", AGENT], timeout=300)
        vm.wait_until(f"{COMMAND} status | grep -q 'state  *watching$'", timeout=300)
        pid = vm.run(["systemctl", "show", "-P", "MainPID", AGENT]).stdout.strip()
        vm.run(f"echo 5 >/proc/{pid}/clear_refs")
        for number in range(1, INCIDENTS + 1):
            have_incident(vm, share, number)
        peak_kb = int(vm.run(f"grep VmHWM /proc/{pid}/status").stdout.split()[1])
        told = [json.loads(line) for line in vm.run(["python3", "-c", TELL]).stdout.splitlines()]
    return figures(told, peak_kb / 1024)


def have_incident(vm: VirtualMachine, share: SmbShare, number: int) -> None:
    """Until its bundle is there and it is over."""
    vm.run(f"mkdir -p {MOUNT_POINT}/locked; echo x >{MOUNT_POINT}/locked/file")
    with share.permission_denied("locked"):
        for _ in range(3):
            run_named(vm, f"cat {MOUNT_POINT}/locked/file")
        vm.wait_until(f"test $(ls {BATCHES}/*.done 2>/dev/null | wc -l) -ge {number}", timeout=120)
    vm.wait_until(f"{COMMAND} status | grep -q lasts: && exit 1 || exit 0", timeout=120)


def figures(told: list[tuple[float, dict[str, Any]]], peak_mb: float) -> list[Figure]:
    whole = [seconds for seconds, _ in told]
    actions = [collection["duration_sec"] for _, collection in told]
    return [
        Figure("trigger to marker, emulated, median", statistics.median(whole), "s", "3 or less"),
        Figure("trigger to marker, emulated, the longest", max(whole), "s"),
        Figure("all actions, emulated, median", statistics.median(actions), "s"),
        Figure("agent's peak while it collects", peak_mb, "MB", "60 or less"),
    ]
