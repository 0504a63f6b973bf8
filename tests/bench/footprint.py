"""What an idle agent costs: resident memory, wake-ups and CPU of a minute, probes attached."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.bench.figure import Figure

IDLE_SEC = 60
SETTLE_SEC = 3


def measure() -> list[Figure]:
    """Start the agent with real probes on this kernel, leave it alone, look at /proc."""
    with tempfile.TemporaryDirectory() as directory:
        agent = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.idle_agent", directory], stdout=subprocess.PIPE
        )
        try:
            assert agent.stdout
            json.loads(agent.stdout.readline())
            time.sleep(SETTLE_SEC)
            before = Usage.of(agent.pid)
            time.sleep(IDLE_SEC)
            after = Usage.of(agent.pid)
        finally:
            agent.terminate()
            agent.wait()
    return [
        Figure("agent resident set, probes attached", after.resident_mb, "MB", "40 or less"),
        Figure(f"wake-ups in {IDLE_SEC} idle seconds", after.switches - before.switches, "", "0"),
        Figure("CPU time in that minute", (after.cpu_ms - before.cpu_ms), "ms", "0"),
    ]


@dataclass(frozen=True)
class Usage:
    """Of a whole process; ``switches`` are voluntary ones of all threads: one per wake-up."""

    resident_mb: float
    switches: int
    cpu_ms: float

    @classmethod
    def of(cls, pid: int) -> Usage:
        process = Path(f"/proc/{pid}")
        switches = sum(
            field(task / "status", "voluntary_ctxt_switches")
            for task in (process / "task").iterdir()
        )
        ticks = (process / "stat").read_text().rpartition(")")[2].split()
        cpu_ms = (int(ticks[11]) + int(ticks[12])) * 1000 / os.sysconf("SC_CLK_TCK")
        return cls(field(process / "status", "VmRSS") / 1024, switches, cpu_ms)


def field(path: Path, name: str) -> int:
    """A number of a status file."""
    for line in path.read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    raise KeyError(name)
