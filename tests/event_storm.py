"""A storm of slow and failed commands in this machine's kernel, from a process of its own.

``python -m tests.event_storm OPTION RATE SECONDS`` sends and prints how many in what time.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from tests.ebpf_host import MOST_BURST, OPTION, burst, wait_until
from tests.live_agent import LiveAgent

LATENCY_NS = 600_000_000
EACCES = 13
PAUSE_SEC = 0.0005


@dataclass(frozen=True)
class Storm:
    """``sent`` events in ``seconds``; ``cpu_sec`` is what this process spent in that time."""

    sent: int
    seconds: float
    cpu_sec: float

    @property
    def rate(self) -> float:
        """Events per second."""
        return self.sent / self.seconds


def storm(agent: LiveAgent, rate: int, seconds: float) -> Storm:
    """Send about ``rate`` events a second to ``agent``; returns when it has dealt with all."""
    started = time.process_time()
    arguments = [str(OPTION), str(rate), str(seconds)]
    sender = subprocess.run(
        [sys.executable, "-m", "tests.event_storm", *arguments],
        cwd=Path(__file__).parents[1],
        stdout=subprocess.PIPE,
        check=True,
    )
    sent = json.loads(sender.stdout)
    wait_until(lambda: accounted(agent) >= sent["events"], "every event is accounted for")
    return Storm(sent["events"], sent["seconds"], time.process_time() - started)


def accounted(agent: LiveAgent) -> int:
    """Events that were examined or counted as lost."""
    events = agent.status()["events"]
    return sum(int(events[part]) for part in ("examined", "ring_full", "bad_records"))


def send(option: int, rate: int, seconds: float) -> dict[str, float]:
    """Bursts at that rate, as far as this machine is fast enough."""
    events = 0
    started = time.monotonic()
    while (elapsed := time.monotonic() - started) < seconds:
        if events > rate * elapsed:
            time.sleep(PAUSE_SEC)
            continue
        burst(MOST_BURST, LATENCY_NS, EACCES, option=option)
        events += MOST_BURST
    return {"events": events, "seconds": time.monotonic() - started}


if __name__ == "__main__":
    print(json.dumps(send(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))))
