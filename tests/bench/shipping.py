"""A backlog into a local MinIO by aod-shipper, against rclone and s5cmd on the same files.

``python -m tests.bench.shipping --share 0.05`` tries it with a twentieth of the files.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from operator import attrgetter
from pathlib import Path

from agent.storage.spool import ARCHIVE, DONE, Spool
from tests.bench.figure import Figure, table
from tests.bench.footprint import Usage, field
from tests.go_programs import MINIO, RCLONE, S5CMD, find_program
from tests.minio_server import MinioServer
from tests.shipper_support import add_bundle, new_spool, wait_for, write_key

WORKERS = 4  # files under way at once, of rclone and s5cmd
IDLE_SEC = 30  # as long as the shipper's own interval between two looks
SHIPPER, RIVALS = "aod-shipper", {"rclone": "1 or less", "s5cmd": "1.3 or less"}


@dataclass(frozen=True)
class Backlog:
    """``count`` bundles whose archives have ``size`` bytes that do not compress."""

    count: int
    size: int
    rounds: int

    def __str__(self) -> str:
        return f"{self.count:,} of {self.size / 1e6:.0f} MB"


BACKLOGS = (Backlog(1000, 1_000_000, rounds=3), Backlog(20, 200_000_000, rounds=2))


@dataclass(frozen=True)
class Cost:
    """Of one program that carried everything: by the clock, of all processors, and its peak."""

    seconds: float
    cpu_sec: float
    resident_mb: float


def measure(share: float = 1) -> list[Figure]:
    """Times and ratios of both backlogs, the shipper's memory, and what it costs idle."""
    figures = []
    for backlog in BACKLOGS:
        part = replace(backlog, count=max(1, round(backlog.count * share)))
        with tempfile.TemporaryDirectory() as place:
            figures += compare(part, Path(place))
    with tempfile.TemporaryDirectory() as place:
        return [*figures, *idle(Path(place), max(1, round(1000 * share)))]


def compare(backlog: Backlog, place: Path) -> list[Figure]:
    """Each program in turn, each time into an empty server; medians."""
    spool = fill(place, backlog.count, backlog.size)
    costs: dict[str, list[Cost]] = {program: [] for program in (SHIPPER, *RIVALS)}
    for number in range(backlog.rounds):
        turns = list(costs)
        for program in turns[number % len(turns) :] + turns[: number % len(turns)]:
            costs[program].append(ship(program, spool, place))
    sec, cpu = (
        {program: statistics.median(map(of, turns)) for program, turns in costs.items()}
        for of in (attrgetter("seconds"), attrgetter("cpu_sec"))
    )
    peak = max(cost.resident_mb for cost in costs[SHIPPER])
    return [
        *(Figure(f"{backlog}, {program}", median, "s") for program, median in sec.items()),
        *(
            Figure(f"{backlog}, {SHIPPER} to {rival}", sec[SHIPPER] / sec[rival], "x", aim)
            for rival, aim in RIVALS.items()
        ),
        *(
            Figure(f"{backlog}, CPU time of {SHIPPER} to {rival}", cpu[SHIPPER] / cpu[rival], "x")
            for rival in RIVALS
        ),
        Figure(f"{backlog}, peak resident set of {SHIPPER}", peak, "MB", "80 or less"),
    ]


def fill(place: Path, count: int, size: int) -> Spool:
    """A spool in which everything waits."""
    spool = new_spool(place / "spool")
    for _ in range(count):
        add_bundle(spool, os.urandom(size))
    return spool


def ship(program: str, spool: Spool, place: Path) -> Cost:
    """One program's turn; when it is over, every archive and every manifest is in the bucket."""
    for path in spool.batches.iterdir():
        if not path.name.endswith((ARCHIVE, DONE)):
            path.unlink()  # a receipt of the turn before
    bundles = len(spool.pending())
    with tempfile.TemporaryDirectory(dir=place) as directory:
        with MinioServer(find_program(MINIO), Path(directory)) as server:
            bucket = server.create_bucket()
            command, environment = COMMANDS[program](server, bucket, spool)
            os.sync()  # nobody waits for what another has written
            cost = run(command, environment)
            keys = server.keys(bucket)
        archives = sum(key.endswith(ARCHIVE) for key in keys)
        if archives != bundles or len(keys) < 2 * bundles:
            raise RuntimeError(f"{program} brought {archives} of {bundles} archives")
    return cost


def run(command: list[str], environment: dict[str, str]) -> Cost:
    """Run to the end and look at the memory meanwhile."""
    before, start, peak_kb = cpu_of_children(), time.perf_counter(), 0
    with subprocess.Popen(
        command, env={**os.environ, **environment}, stdout=subprocess.DEVNULL
    ) as process:
        while process.poll() is None:
            peak_kb = max(peak_kb, peak_of(process.pid))
            time.sleep(0.01)
    seconds = time.perf_counter() - start
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return Cost(seconds, cpu_of_children() - before, peak_kb / 1024)


def peak_of(pid: int) -> int:
    """The kernel's own high-water mark, in KiB; nothing of a process that has just ended."""
    try:
        return field(Path(f"/proc/{pid}/status"), "VmHWM")
    except (OSError, KeyError):
        return 0


def cpu_of_children() -> float:
    """Seconds, of those waited for."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


Command = tuple[list[str], dict[str, str]]


def key_of(server: MinioServer) -> Path:
    key = f"aws_access_key_id = {server.access_key}"
    return write_key(server.directory / "key", key, f"aws_secret_access_key = {server.secret_key}")


def shipper_once(server: MinioServer, bucket: str, spool: Spool) -> Command:
    config = shipper_config(server, bucket, spool)
    return [sys.executable, "-m", "shipper.cli", "once", "--config", str(config)], {}


def shipper_config(server: MinioServer, bucket: str, spool: Spool) -> Path:
    config = server.directory / "shipper.yaml"
    config.write_text(
        f"spool: {spool.root}\ndestination:\n  type: s3\n  bucket: {bucket}\n"
        f"  endpoint_url: {server.endpoint_url}\n  credentials_file: {key_of(server)}\n"
    )
    return config


def rclone_copy(server: MinioServer, bucket: str, spool: Spool) -> Command:
    config = server.directory / "rclone.conf"
    config.write_text(
        f"[store]\ntype = s3\nprovider = Minio\nenv_auth = true\nendpoint = {server.endpoint_url}\n"
    )
    copy = ["copy", "--config", str(config), "--transfers", str(WORKERS)]
    command = [str(find_program(RCLONE)), *copy, str(spool.batches), f"store:{bucket}"]
    return command, {"AWS_SHARED_CREDENTIALS_FILE": str(key_of(server))}


def s5cmd_copy(server: MinioServer, bucket: str, spool: Spool) -> Command:
    command = [str(find_program(S5CMD)), "--log", "error", "--numworkers", str(WORKERS), "cp"]
    return [*command, f"{spool.batches}/", f"s3://{bucket}/"], {
        "AWS_SHARED_CREDENTIALS_FILE": str(key_of(server)),
        "S3_ENDPOINT_URL": server.endpoint_url,
    }


COMMANDS: dict[str, Callable[[MinioServer, str, Spool], Command]] = {
    SHIPPER: shipper_once,
    "rclone": rclone_copy,
    "s5cmd": s5cmd_copy,
}


def idle(place: Path, delivered: int) -> list[Figure]:
    """The service, once it has shipped everything and nothing more comes."""
    spool = fill(place, delivered, 1000)
    with MinioServer(find_program(MINIO), place / "minio") as server:
        config = shipper_config(server, server.create_bucket(), spool)
        command = [sys.executable, "-m", "shipper.cli", "run", "--config", str(config)]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
            try:
                tasks = Path(f"/proc/{process.pid}/task")
                wait_for(lambda: not spool.pending(), "everything is shipped")
                wait_for(lambda: len(list(tasks.iterdir())) == 1, "the threads that delivered end")
                before = Usage.of(process.pid)
                time.sleep(IDLE_SEC)
                after = Usage.of(process.pid)
            finally:
                process.terminate()
    title = f"{SHIPPER} run, {IDLE_SEC} idle seconds"
    return [
        Figure(f"{title}, CPU time", after.cpu_ms - before.cpu_ms, "ms"),
        Figure(f"{title}, wake-ups", after.switches - before.switches, ""),
        Figure(f"{title}, resident set", after.resident_mb, "MB", "80 or less"),
    ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="tests.bench.shipping", description=__doc__)
    parser.add_argument("--share", type=float, default=1, help="of the bundles (default: all)")
    print(table(measure(parser.parse_args().share)))
