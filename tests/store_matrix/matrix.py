"""The matrix: every fault at every request of a run, once and for a while."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from tests.store_matrix.faults import FAULTS
from tests.store_matrix.proxy import Fault, Injection
from tests.store_matrix.runs import LANES, Bench, Result, ship_in_rounds
from tests.store_matrix.spool_steps import SpoolStep
from tests.store_matrix.store_request import StoreRequest

ONCE, WHILE = 1, 5


@dataclass(frozen=True)
class Point:
    """``fault`` from the first request (or step) like this on, ``times`` in all."""

    fault: Fault
    request: StoreRequest | SpoolStep
    times: int

    def __str__(self) -> str:
        """The same in every run."""
        often = "once" if self.times == ONCE else f"{self.times} times"
        return f"{self.fault.name}, {often} from {self.request.label}"


@dataclass(frozen=True)
class Outcome:
    """What came of a point; ``remains`` and ``broken`` as in `Result`."""

    point: str
    fault: str
    kind: str
    remains: int
    broken: tuple[str, ...]


def plan(requests: Sequence[StoreRequest], faults: Sequence[Fault] = FAULTS) -> list[Point]:
    """All points; ``requests`` are those of a run without a fault."""
    return [
        Point(fault, request, times)
        for fault in faults
        for request in {request.label: request for request in requests}.values()
        if fault.suits(request)
        for times in (ONCE, WHILE)
    ]


def try_points(bench: Bench, points: Sequence[Point]) -> Iterator[Outcome]:
    """In their order, some at a time."""
    with ThreadPoolExecutor(LANES) as pool:
        yield from pool.map(partial(try_point, bench), points)


def try_point(bench: Bench, point: Point) -> Outcome:
    """Ship with this fault, and look."""
    injection = Injection(point.fault, point.request.label, point.times)
    return outcome_of(point, bench.run(injection, ship_in_rounds))


def outcome_of(point: Point, result: Result) -> Outcome:
    """For the figures."""
    fault, kind = point.fault.name, point.request.kind
    return Outcome(str(point), fault, kind, result.remains, result.broken)
