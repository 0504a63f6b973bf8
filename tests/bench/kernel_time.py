"""What a command costs in the kernel: BPF run time by the kernel's own statistics."""

from __future__ import annotations

import json
import os
from pathlib import Path

from agent.kernel.probe import load_probe
from tests.bench.figure import Figure
from tests.ebpf_host import PRCTL_LOADER, Kernel
from tests.vm.image import image_for
from tests.vm.install import install
from tests.vm.machine import VirtualMachine
from tests.vm.smb_share import SmbShare

MOUNT_POINT = "/mnt/share"
STATISTICS = Path("/proc/sys/kernel/bpf_stats_enabled")
NATIVE_COMMANDS = 50_000
READ = 8
# An empty program on the same tracepoint would show the statistics' own cost; what is printed
# includes it, and the emulation's slowness.
MEASURE = f"""
import json, os
from pathlib import Path
from agent.kernel.kernel_filter import kernel_settings
from agent.kernel.probe import load_probe

probe = load_probe()
switch = Path("/proc/sys/kernel/bpf_stats_enabled")
switch.write_text("1")
for round in range(300):
    path = Path("{MOUNT_POINT}") / f"file{{round}}"
    path.write_bytes(b"x" * 4096)
    path.read_bytes()
    path.unlink()
switch.write_text("0")
statistics = probe.run_statistics()
commands = int(probe.histograms.sum())
print(json.dumps({{"commands": commands, "programs": statistics}}))
"""


def measure() -> list[Figure]:
    """Nanoseconds of BPF per command, all programs together."""
    return [native(), *emulated()]


def native() -> Figure:
    """The same core on this machine's kernel: a start and an end, driven by prctl(2)."""
    probe = load_probe(command=PRCTL_LOADER)
    kernel = Kernel(probe)
    STATISTICS.write_text("1")
    try:
        for _ in range(NATIVE_COMMANDS):
            kernel.run(READ)
        statistics = probe.run_statistics()["on_prctl"]
    finally:
        STATISTICS.write_text("0")
        probe.close()
    per_command_ns = statistics["run_time_ns"] / NATIVE_COMMANDS
    return Figure("BPF run time per command, this kernel", per_command_ns, "ns")


def emulated() -> list[Figure]:
    """Real commands of a real mount in the emulated guest."""
    with VirtualMachine(image_for(os.environ.get("AOD_VM_KERNEL", "6.1"))) as vm:
        share = SmbShare(vm)
        share.set_up()
        share.mount(MOUNT_POINT)
        install(vm)
        python = "/opt/aod/current/bin/python"
        result = json.loads(vm.run([python, "-"], input_text=MEASURE, timeout=300).stdout)
    total_ns = sum(program["run_time_ns"] for program in result["programs"].values())
    return [
        Figure("SMB commands in the guest", result["commands"], ""),
        Figure("BPF run time per command, emulated", total_ns / result["commands"], "ns"),
    ]
