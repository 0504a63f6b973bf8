"""Runs a script in the guest and tells when: the clock is read right before and right after.

Prints one line of JSON; the exit status is the script's.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time


def now() -> dict[str, int]:
    return {"t_mono_ns": time.clock_gettime_ns(time.CLOCK_MONOTONIC), "t_wall_ns": time.time_ns()}


def main(script: str) -> int:
    command = ["bash", "--norc", "-euo", "pipefail", "-c", script]
    before = now()
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=sys.stderr, check=False)
    after = now()
    print(json.dumps({"before": before, "after": after}))
    return done.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
