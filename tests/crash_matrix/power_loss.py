"""Power losses: a victim's run is recorded, and after each of its operations the power goes."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from agent.storage.spool import DONE
from tests.crash_matrix.disk import Disk, Image, load_image, write_image
from tests.crash_matrix.matrix import (
    REPORT,
    SPOOL,
    WORKERS,
    Point,
    Workplace,
    make_seed,
    plan,
)
from tests.crash_matrix.operations import Operation, operations
from tests.crash_matrix.report import report_entries
from tests.crash_matrix.tracing import read_calls, run_traced
from tests.crash_matrix.victim import ABSENT, Fates, Victim

DATA_LIMIT = 1 << 24
# Thousands of small files: in memory where there is such a place, which changes nothing here.
SCRATCH = next((path for path in (Path("/dev/shm"),) if os.access(path, os.W_OK)), None)


@dataclass(frozen=True)
class Loss:
    """One state of the disk after a loss of power behind ``operation``; ``lost`` says what of that
    which was not durable. ``error``: the operation that failed before, if one did. ``known``: the
    same state was looked at before."""

    victim: str
    error: str
    operation: str
    lost: str
    known: bool
    broken: tuple[str, ...]


class Promises:
    """Which fates the bundles may have, as a run goes on.

    A promise holds from the moment the victim relies on it, and that of a marker from the fsync of
    its directory.
    """

    def __init__(self, victim: Victim) -> None:
        self.fates: Fates = dict(victim.fates)
        self._renamed: set[str] = set()

    def follow(self, operation: Operation) -> None:
        """Take note of what the operation promises."""
        name = Path(operation.names[-1]).name
        if not operation.call.succeeded:
            return
        if operation.names[0] == REPORT:
            for entry in report_entries(operation.call.data):
                if "promise" in entry:
                    self._narrow(entry["promise"], {entry["fate"]})
        elif operation.kind == "rename" and name.endswith(DONE):
            self._renamed.add(name.removesuffix(DONE))
        elif operation.kind == "unlink" and name.endswith(DONE):
            self._renamed.discard(name.removesuffix(DONE))
        elif operation.kind == "fsync directory":
            for bundle_id in self._renamed:
                self._narrow(bundle_id, self.fates[bundle_id] - {ABSENT})
            self._renamed.clear()

    def _narrow(self, bundle_id: str, fates: set[str] | frozenset[str]) -> None:
        self.fates = {**self.fates, bundle_id: self.fates[bundle_id] & fates}


def lose_power(victim: Victim) -> Iterator[Loss]:
    """Every state after each operation of a run without a fault."""
    with tempfile.TemporaryDirectory(dir=SCRATCH) as directory:
        seed = make_seed(victim, Path(directory))
        yield from _losses(victim, seed, record(victim, seed, Path(directory)))


def lose_power_after_errors(victim: Victim, every: int = 1) -> Iterator[Loss]:
    """As `lose_power`, but in runs in which a call failed with EIO, and from there on: its cleaning
    up may be lost too. One run for every ``every``-th call that changes anything."""
    with tempfile.TemporaryDirectory(dir=SCRATCH) as directory:
        seed = make_seed(victim, Path(directory))
        points = [
            point
            for point in plan(victim, seed)
            if point.fault == "EIO" and point.operation.kind != "open"
        ]
        with ProcessPoolExecutor(WORKERS, mp_context=get_context("fork")) as pool:
            for losses in pool.map(partial(_lose_power_after, victim, seed), points[::every]):
                yield from losses


def record(victim: Victim, seed: Path, directory: Path) -> list[Operation]:
    """All operations of one run of the victim and its children.

    Raises RuntimeError when the model of a disk does not arrive at the same files.
    """
    place, log = Workplace(directory / "work", seed), directory / "log"
    status = run_traced(partial(place.act, victim), log, follow=True, limit=DATA_LIMIT)
    if status != 0:
        raise RuntimeError(f"{victim.name} ended with wait status {status}")
    done = operations(read_calls(log), place.root)
    disk = Disk(seed)
    for operation in done:
        disk.apply(operation)
    if dict(disk.images(0))["nothing"] != load_image(place.root):
        raise RuntimeError(f"the model has not followed {victim.name}")
    return done


def _lose_power_after(victim: Victim, seed: Path, point: Point) -> list[Loss]:
    """Without what the victim's children write: their calls would count as its own."""
    with tempfile.TemporaryDirectory(dir=SCRATCH) as directory:
        place, log = Workplace(Path(directory, "work"), seed), Path(directory, "log")
        run_traced(partial(place.act, victim), log, point.injection, limit=DATA_LIMIT)
        done = operations(read_calls(log), place.root)
    return list(_losses(victim, seed, done, str(point.operation)))


def _losses(victim: Victim, seed: Path, done: list[Operation], error: str = "") -> Iterator[Loss]:
    disk, promises = Disk(seed), Promises(victim)
    looking = not error
    known: dict[str, tuple[str, ...]] = {}
    for number, operation in enumerate(done):
        disk.apply(operation)
        promises.follow(operation)
        looking = looking or operation.call.hit
        for lost, image in disk.images(number) if looking else ():
            key = _key(image, promises.fates)
            is_known = key in known
            if not is_known:
                known[key] = tuple(_broken(victim, image, promises.fates))
            yield Loss(victim.name, error, str(operation), lost, is_known, known[key])


def _broken(victim: Victim, image: Image, fates: Fates) -> list[str]:
    with tempfile.TemporaryDirectory(dir=SCRATCH) as directory:
        write_image(image, Path(directory))
        return victim.look(Path(directory, SPOOL), fates)


def _key(image: Image, fates: Fates) -> str:
    """The report is no part of the spool."""
    digest = hashlib.sha256()
    for name, content in sorted(image.items()):
        if name != REPORT:
            digest.update(f"{name}\0".encode())
            digest.update(b"-" if content is None else hashlib.sha256(content).digest())
    digest.update(json.dumps({key: sorted(value) for key, value in fates.items()}).encode())
    return digest.hexdigest()
