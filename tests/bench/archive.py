"""How long a bundle's archive takes, against tar and zstd on the same files at the same time."""

from __future__ import annotations

import random
import resource
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from agent.collection.archive import pack
from tests.bench.figure import Figure
from tests.evidence import make_events

ROUNDS = 15
PIPE, TAR = "tar | zstd -3", "tar --zstd"
LEVEL = 3
LOGS_MB = {"journalctl.log": 24, "syslogs.log": 16, "dmesg.log": 12, "debug_data.log": 4}
EVENTS = 65_536
SEED = 20_261_125
MESSAGES = (
    "kernel: CIFS: VFS: \\\\files\\projects has not responded in 180 seconds. Reconnecting...",
    "kernel: CIFS: Status code returned 0xc{number:07x} STATUS_NETWORK_NAME_DELETED",
    "systemd[1]: Started session-{number}.scope - Session {number} of User build{small}.",
    "sshd[{number}]: Accepted publickey for backup from 10.20.{small}.7 port {number} ssh2",
    "python3[{number}]: open /mnt/projects/{small}/part-{number}.parquet: Host is down",
    "audit[{number}]: AVC apparmor=ALLOWED operation=open profile=sssd pid={number} comm=sssd_nss",
)


@dataclass(frozen=True)
class Cost:
    """Of one archive: time by the clock, CPU time of all processes and threads, bytes made."""

    seconds: float
    cpu_sec: float
    size: int


def measure() -> list[Figure]:
    """Median times of `pack` and of both ways of the shell, in turns, and the ratios of them."""
    with tempfile.TemporaryDirectory() as place:
        directory = Path(place) / "01KB00000000000000000BENCH"
        directory.mkdir()
        megabytes = write_files(directory) / (1 << 20)
        target = Path(place) / "target.tar.zst"
        tar = f"tar -C {place}"
        costs = in_turns(
            {
                "pack": lambda: pack(directory, target, LEVEL, 0),
                "pack, 2 threads": lambda: pack(directory, target, LEVEL, 0, threads=2),
                PIPE: lambda: shell(f"{tar} -cf - {directory.name} | zstd -3 -qo {target}"),
                TAR: lambda: shell(f"{tar} --zstd -cf {target} {directory.name}"),
            },
            target,
        )
    pack_cost, pipe = costs["pack"], costs[PIPE]
    return [
        *(
            Figure(f"archive of {megabytes:.0f} MB, {way}", cost.seconds * 1000, "ms")
            for way, cost in costs.items()
        ),
        Figure(f"archive, pack to {PIPE}", pack_cost.seconds / pipe.seconds, "x", "1.3 or less"),
        Figure(f"archive, pack to {TAR}", pack_cost.seconds / costs[TAR].seconds, "x"),
        Figure(f"archive's CPU time, pack to {PIPE}", pack_cost.cpu_sec / pipe.cpu_sec, "x"),
        Figure(f"archive's size, pack to {PIPE}", pack_cost.size / pipe.size, "x"),
    ]


def in_turns(
    ways: dict[str, Callable[[], object]], target: Path, rounds: int = ROUNDS
) -> dict[str, Cost]:
    """The medians of each way; their turns alternate, so that the load is the same for all."""
    costs: dict[str, list[Cost]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, run in ways.items():
            start, cpu_start = time.perf_counter(), cpu_sec()
            run()
            seconds, cpu = time.perf_counter() - start, cpu_sec() - cpu_start
            costs[way].append(Cost(seconds, cpu, target.stat().st_size))
            target.unlink()
    return {
        way: Cost(
            statistics.median(cost.seconds for cost in turns),
            statistics.median(cost.cpu_sec for cost in turns),
            turns[0].size,
        )
        for way, turns in costs.items()
    }


def cpu_sec() -> float:
    """Of this process and the children waited for."""
    usages = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def shell(command: str) -> None:
    """Run a pipe."""
    subprocess.run(["bash", "-o", "pipefail", "-c", command], check=True)


def write_files(directory: Path) -> int:
    """Logs as a busy host writes them, and a full flight recorder; bytes of all."""
    chance = random.Random(SEED)  # noqa: S311
    for name, megabytes in LOGS_MB.items():
        with (directory / name).open("w") as file:
            written = 0
            while written < megabytes << 20:
                written += file.write(log_line(chance))
    np.save(directory / "events.npy", make_events(EVENTS, failed_every=62))
    (directory / "manifest.json").write_text("{}\n")
    return sum(path.stat().st_size for path in directory.iterdir())


def log_line(chance: random.Random) -> str:
    """A line with a time, a few values of its own, and words that come again."""
    number, small = chance.randrange(1_000_000), chance.randrange(256)
    clock = f"{number % 24:02}:{small % 60:02}:{chance.randrange(60):02}"
    message = chance.choice(MESSAGES).format(number=number, small=small)
    return f"2026-11-25T{clock}.{chance.randrange(1_000_000):06}+0000 client-7 {message}\n"
