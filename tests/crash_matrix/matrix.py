"""The matrix: every call that a victim makes on its spool, failed or killed, one in each run."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from tests.crash_matrix.invariants import whole_bundles
from tests.crash_matrix.operations import Operation, operations
from tests.crash_matrix.report import Report, report_entries
from tests.crash_matrix.tracing import read_calls, run_traced
from tests.crash_matrix.victim import ABSENT, Victim

WORKERS = 2
SPOOL, REPORT = "spool", "report"

KILL = "SIGKILL"
ERRORS = ("EIO", "ENOSPC", "EDQUOT")
# What needs no space fails with EIO only; an `open` to read changes nothing, so a kill there is
# the same as at the next call.
FAULTS = {
    **dict.fromkeys(("open",), ("EIO",)),
    **dict.fromkeys(("unlink", "rmdir", "chmod"), (KILL, "EIO")),
}
OTHER_FAULTS = (KILL, *ERRORS)


@dataclass(frozen=True)
class Point:
    """One fault at one call: it fails with ``fault``, or the process dies before it takes effect.

    After its effect is the same as before the next one's.
    """

    operation: Operation
    fault: str

    @property
    def injection(self) -> str:
        """For strace."""
        error = "error=EIO:signal=SIGKILL" if self.fault == KILL else f"error={self.fault}"
        return f"{self.operation.call.name}:{error}:when={self.operation.call.ordinal}"


@dataclass(frozen=True)
class Outcome:
    """Which invariants broke at a point: none, if all is well."""

    victim: str
    operation: str
    where: str
    fault: str
    broken: tuple[str, ...]


class Workplace:
    """A directory with a copy of the victim's spool, and its report beside it."""

    def __init__(self, root: Path, seed: Path) -> None:
        self.root = root
        self.spool = root / SPOOL
        self.report = root / REPORT
        shutil.copytree(seed, root)

    def act(self, victim: Victim) -> None:
        """The victim's part; a child's, as a rule."""
        with Report(self.report) as report:
            victim.act(self.spool, report)

    def entries(self) -> list[dict[str, Any]]:
        """What the victim reported."""
        return report_entries(self.report.read_bytes()) if self.report.exists() else []


def make_seed(victim: Victim, directory: Path) -> Path:
    """A fresh directory with the spool that the victim finds; to be copied."""
    seed = directory / "seed"
    seed.mkdir()
    victim.seed(seed / SPOOL)
    return seed


def plan(victim: Victim, seed: Path) -> list[Point]:
    """All points of a victim, in the order of its calls.

    It runs in this process once before: what it imports, and caches, is then there in every run
    that counts, and its calls have the same ordinals in all of them.
    """
    with tempfile.TemporaryDirectory() as directory:
        Workplace(Path(directory, "warm"), seed).act(victim)
        place, log = Workplace(Path(directory, "work"), seed), Path(directory, "log")
        status = run_traced(partial(place.act, victim), log)
        problems = [entry for entry in place.entries() if "failure" in entry or "broken" in entry]
        if status != 0 or problems:
            raise RuntimeError(f"{victim.name} does not work even without a fault: {problems}")
        tried = takewhile(_is_tried, operations(read_calls(log), place.root))
        return [
            Point(operation, fault)
            for operation in tried
            if operation.names[0] != REPORT
            for fault in FAULTS.get(operation.kind, OTHER_FAULTS)
        ]


def _is_tried(operation: Operation) -> bool:
    """Up to the mark in the report; a trace without data shows its begin."""
    return not operation.call.data.startswith(b'{"tried"')


def try_points(victim: Victim, every: int = 1) -> Iterator[Outcome]:
    """Try every ``every``-th point of the victim, two at a time."""
    with tempfile.TemporaryDirectory() as directory:
        seed = make_seed(victim, Path(directory))
        points = plan(victim, seed)[::every]
        with ProcessPoolExecutor(WORKERS, mp_context=get_context("fork")) as pool:
            yield from pool.map(partial(try_point, victim, seed), points, chunksize=4)


def try_point(victim: Victim, seed: Path, point: Point) -> Outcome:
    """Run the victim with one fault, start on what it leaves, and look."""
    with tempfile.TemporaryDirectory() as directory:
        place, log = Workplace(Path(directory, "work"), seed), Path(directory, "log")
        status = run_traced(partial(place.act, victim), log, point.injection)
        broken = [
            *_missed(point, operations(read_calls(log), place.root)),
            *_broken_ending(status, point, place.entries()),
            *_broken_spool(victim, place),
        ]
    return Outcome(
        victim.name, point.operation.kind, str(point.operation), point.fault, tuple(broken)
    )


def _missed(point: Point, done: list[Operation]) -> Iterator[str]:
    hits = [str(operation) for operation in done if operation.call.hit]
    if hits != [str(point.operation)]:
        yield f"the harness missed {point.operation}: it hit {hits}"


def _broken_ending(status: int, point: Point, entries: list[dict[str, Any]]) -> Iterator[str]:
    """A kill kills; anything else is survived, and told in its own words."""
    yield from (entry["broken"] for entry in entries if "broken" in entry)
    if point.fault == KILL:
        if not os.WIFSIGNALED(status):
            yield f"the kill did not kill: wait status {status}"
        return
    if status != 0 or {"worked": True} not in entries:
        yield f"an error ended the process: wait status {status}"
    reason = os.strerror(getattr(errno, point.fault))
    for entry in entries:
        if "failure" in entry and reason not in entry["reason"]:
            yield f"the reason is not told: {entry}"


def _broken_spool(victim: Victim, place: Workplace) -> list[str]:
    fates = dict(victim.fates)
    for entry in place.entries():
        if "promise" in entry:
            fates[entry["promise"]] &= {entry["fate"]}
    seen = whole_bundles(place.spool) if (place.spool / "batches").is_dir() else set()
    for bundle_id in seen & set(fates):
        fates[bundle_id] -= {ABSENT}
    lost = [
        f"{bundle_id} was there before the restart" for bundle_id in seen if bundle_id not in fates
    ]
    return [*lost, *victim.look(place.spool, fates)]
