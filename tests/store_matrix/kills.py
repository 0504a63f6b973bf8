"""Kills: a real ``aod-shipper`` dies at every request and at every step in its spool, before or
after it takes effect, and is started again."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

from agent.storage.spool import Spool
from shipper.commands.command import EXIT_LEFT_BEHIND, EXIT_OK
from tests.store_matrix.exchange import Exchange
from tests.store_matrix.matrix import ONCE, Outcome, Point, outcome_of
from tests.store_matrix.proxy import Fault, Injection
from tests.store_matrix.runs import LANES, Bench
from tests.store_matrix.spool_steps import DEATH, LOG, SpoolStep, moment, read_steps
from tests.store_matrix.store_request import StoreRequest
from tests.store_matrix.victim import Store

TIMEOUT_SEC = 120
BEFORE, AFTER = "killed before", "killed after"


class MortalShipper:
    """Runs ``aod-shipper once``, with ``wishes`` in its environment, and once more when that was
    killed: `died`, then. `kill` may come from anywhere."""

    def __init__(self, **wishes: str) -> None:
        self._wishes = wishes
        self._process: subprocess.Popen[str] | None = None
        self.died = False

    def ship(self, store: Store, spool: Spool) -> list[str]:
        """Until it has lived to its end."""
        command = store.new_command(spool)
        status, said = self._run(command, self._wishes)
        self.died = status == -signal.SIGKILL
        if self.died:
            status, said = self._run(command, {})
        fine = status in (EXIT_OK, EXIT_LEFT_BEHIND)
        return [] if fine else [f"exit status {status}: {said}"]

    def kill(self) -> None:
        """As ``kill -9`` does; when it has returned, the process is no more."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def _run(self, command: list[str], wishes: dict[str, str]) -> tuple[int, str]:
        with subprocess.Popen(
            command,
            env={**os.environ, **wishes},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as self._process:
            try:
                said, _ = self._process.communicate(timeout=TIMEOUT_SEC)
            finally:
                self._process.kill()
        return self._process.returncode, said


def plan_kills(bench: Bench, requests: Sequence[StoreRequest]) -> list[Point]:
    """All points; ``requests`` are those of a run without a fault."""
    steps: list[StoreRequest | SpoolStep] = [*{one.label: one for one in requests}.values()]
    with tempfile.TemporaryDirectory() as directory:
        log = Path(directory, "steps")
        bench.clean_run(MortalShipper(**{LOG: str(log)}).ship)
        steps += read_steps(log)
    faults = [Fault(name, Exchange.drop) for name in (BEFORE, AFTER)]
    return [Point(fault, step, ONCE) for step in steps for fault in faults]


def try_kills(bench: Bench, points: Sequence[Point]) -> Iterator[Outcome]:
    """In their order, some at a time."""
    with ThreadPoolExecutor(LANES) as pool:
        yield from pool.map(partial(try_kill, bench), points)


def try_kill(bench: Bench, point: Point) -> Outcome:
    """Ship, die, ship again, and look."""
    if isinstance(point.request, SpoolStep):
        return _die_at_step(bench, point, point.request)
    shipper = MortalShipper()

    def apply(exchange: Exchange) -> None:
        if point.fault.name == AFTER:
            exchange.forward()
        shipper.kill()
        exchange.drop()

    injection = Injection(Fault(point.fault.name, apply), point.request.label)
    return outcome_of(point, bench.run(injection, shipper.ship, remembers=False))


def _die_at_step(bench: Bench, point: Point, step: SpoolStep) -> Outcome:
    with tempfile.TemporaryDirectory() as directory:
        log = Path(directory, "steps")
        death = moment(step, done=point.fault.name == AFTER)
        shipper = MortalShipper(**{LOG: str(log), DEATH: death})
        outcome = outcome_of(point, bench.run(None, shipper.ship, remembers=False))
        met = shipper.died and step in read_steps(log)
    return outcome if met else replace(outcome, broken=(*outcome.broken, "the harness missed it"))
