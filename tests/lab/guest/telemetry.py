"""Writes a row a second about the processes of some units, until SIGTERM.

``telemetry.py OUT SOURCE=UNIT[:server] ...``: a row is what /proc/<pid>/stat says of one process.
A unit marked ``:server`` would be on another host in deployment, so that nobody could see it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

INTERVAL_SEC = 1.0
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def main(out: Path, *sources: str) -> None:
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    watched = [source.partition("=")[::2] for source in sources]
    groups = {name: control_group(unit.partition(":")[0]) for name, unit in watched}
    visible = {name: not unit.endswith(":server") for name, unit in watched}
    with out.open("w") as file:
        while not stop.is_set():
            for name, group in groups.items():
                for row in rows(group):
                    row |= {"source": name, "available_in_deployment": visible[name]}
                    file.write(json.dumps(row) + "\n")
            file.flush()
            stop.wait(INTERVAL_SEC)


def control_group(unit: str) -> Path:
    shown = subprocess.run(
        ["systemctl", "show", "-P", "ControlGroup", unit],
        capture_output=True,
        text=True,
        check=True,
    )
    return Path(f"/sys/fs/cgroup{shown.stdout.strip()}")


def rows(group: Path) -> Iterator[dict[str, object]]:
    try:
        processes = (group / "cgroup.procs").read_text().split()
    except OSError:  # the unit is down
        return
    for process in processes:
        try:
            stat = Path(f"/proc/{process}/stat").read_text()
        except OSError:  # it has just ended
            continue
        # The name in parentheses may hold anything; what follows it is numbers (proc(5)).
        fields = stat.rpartition(")")[2].split()
        yield {
            "t_mono_ns": time.monotonic_ns(),
            "t_wall_ns": time.time_ns(),
            "pid": int(process),
            "state": fields[0],
            "cpu_user_jiffies": int(fields[11]),
            "cpu_sys_jiffies": int(fields[12]),
            "threads": int(fields[17]),
            "rss_bytes": int(fields[21]) * PAGE_BYTES,
        }


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
