"""A part of the store matrix; and that it finds what it is there to find."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from shipper.destinations.delivery import Delivery
from shipper.destinations.object_key import ObjectKeys
from shipper.s3.bucket import S3Bucket
from tests.cargo import SMALL
from tests.minio_server import MinioServer
from tests.store_matrix import __main__
from tests.store_matrix.faults import FAULTS
from tests.store_matrix.kills import AFTER, BEFORE, plan_kills, try_kills
from tests.store_matrix.matrix import ONCE, Outcome, Point, plan, try_point, try_points
from tests.store_matrix.proxy import Fault
from tests.store_matrix.runs import Bench, open_bench, ship_in_rounds
from tests.store_matrix.store_request import BEGIN, COMPLETE, PART, StoreRequest

pytestmark = pytest.mark.minio

# Coprime to the number of requests of a run, so that each gets its turn.
EVERY, EVERY_KILL = 19, 5


@pytest.fixture(scope="module")
def bench(minio: MinioServer) -> Iterator[Bench]:
    with open_bench(minio.binary) as opened:
        yield opened


@pytest.fixture(scope="module")
def requests(bench: Bench) -> tuple[StoreRequest, ...]:
    return bench.clean_run(ship_in_rounds)


def broken(outcomes: Iterable[Outcome]) -> list[str]:
    return [f"{outcome.point}: {text}" for outcome in outcomes for text in outcome.broken]


def fault_called(name: str) -> Fault:
    (fault,) = (fault for fault in FAULTS if fault.name == name)
    return fault


def request_called(requests: Iterable[StoreRequest], kind: str, bundle_id: str) -> StoreRequest:
    return next(one for one in requests if one.kind == kind and bundle_id in one.label)


def test_a_run_has_every_kind_of_request(requests: tuple[StoreRequest, ...]) -> None:
    kinds = {"PUT archive", "PUT manifest", "PUT tombstone", BEGIN, PART, COMPLETE}
    assert kinds <= {request.kind for request in requests}


def test_a_part_of_the_matrix_is_survived(bench: Bench, requests: tuple[StoreRequest, ...]) -> None:
    points = plan(requests)[::EVERY]
    assert broken(try_points(bench, points)) == []
    assert len(points) > 2 * len({request.label for request in requests})


def test_a_kill_is_survived(bench: Bench, requests: tuple[StoreRequest, ...]) -> None:
    points = plan_kills(bench, requests)[::EVERY_KILL]
    assert {point.fault.name for point in points} == {BEFORE, AFTER}
    assert broken(try_kills(bench, points)) == []


def deliver_backwards(bucket: S3Bucket, delivery: Delivery) -> None:
    """What lies under the manifest's key comes first."""
    swapped = ObjectKeys(archive=delivery.keys.manifest, manifest=delivery.keys.archive)
    DELIVER(bucket, replace(delivery, keys=swapped))
    DELIVER(bucket, delivery)


def deliver_on_the_first_try(bucket: S3Bucket, delivery: Delivery) -> None:
    """What was refused once is taken for delivered."""
    tried = TRIED.setdefault(bucket, set())
    if delivery.id not in tried:
        tried.add(delivery.id)
        DELIVER(bucket, delivery)


TRIED: dict[S3Bucket, set[str]] = {}
DELIVER = S3Bucket.deliver


@pytest.mark.parametrize(
    ("deliver", "found"),
    [
        (deliver_backwards, "a manifest was there before its archive: PUT manifest"),
        (deliver_on_the_first_try, f"not in the store: filer-1/2023/11/11/{SMALL[0]}"),
    ],
)
def test_a_planted_fault_is_found(
    bench: Bench,
    requests: tuple[StoreRequest, ...],
    monkeypatch: pytest.MonkeyPatch,
    deliver: Callable[[S3Bucket, Delivery], None],
    found: str,
) -> None:
    request = request_called(requests, "PUT archive", SMALL[0])
    point = Point(fault_called("request lost"), request, ONCE)
    assert broken([try_point(bench, point)]) == []
    monkeypatch.setattr(S3Bucket, "deliver", deliver)
    assert any(found in text for text in broken([try_point(bench, point)]))


def test_a_fault_that_is_never_met_is_found(
    bench: Bench, requests: tuple[StoreRequest, ...]
) -> None:
    point = Point(fault_called("reply lost"), StoreRequest("PUT", "/bucket/nothing", (), b""), ONCE)
    outcome = try_point(bench, point)
    assert broken([outcome]) == [f"{point}: the harness missed the request"]


def test_the_command_says_what_broke(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(S3Bucket, "deliver", deliver_backwards)
    monkeypatch.setattr(__main__, "OUT", tmp_path / "figures.json")
    monkeypatch.setattr(Bench, "clean_run", lambda bench, ship: bench.run(None, ship).requests)
    assert __main__.main(["--every", "600"]) == 1
    assert "BROKEN" in capsys.readouterr().out
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["faults"]["points"] > figures["faults"]["survived"]
    assert figures["faults"]["broken"]
    assert figures["kills"]["points"] == figures["kills"]["survived"] == 1
