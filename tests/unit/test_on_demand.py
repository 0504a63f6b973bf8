"""What a person may ask to be captured, and the order that becomes of it."""

from __future__ import annotations

import os
import time

import numpy as np
import pytest

from agent.detection.on_demand import CaptureRequest, OnDemand
from agent.events.event_source import Snapshot
from agent.events.flight_recorder import FlightRecorder
from agent.kernel.ring_buffer import RAW_EVENT
from tests.evidence import make_events, make_inflight

FINE = {"duration_sec": 3, "target_pid": os.getpid(), "label": "slow upload"}


def test_a_request_is_read() -> None:
    assert CaptureRequest.of(FINE) == CaptureRequest(3.0, os.getpid(), "slow upload")
    assert CaptureRequest.of({"duration_sec": 0.5, "label": ""}) == CaptureRequest(0.5)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"duration_sec": -1}, "0 to 3,600 seconds"),
        ({"duration_sec": 3601}, "0 to 3,600 seconds"),
        ({"duration_sec": float("nan")}, "0 to 3,600 seconds"),
        ({"duration_sec": "5"}, "0 to 3,600 seconds"),
        ({"duration_sec": None}, "0 to 3,600 seconds"),
        ({"target_pid": 0}, "no process 0"),
        ({"target_pid": 1 << 22 | 1}, "no process 4194305"),
        ({"target_pid": "../1"}, "no process ../1"),
        ({"label": "x" * 201}, "200 characters at most"),
        ({"label": "a\nb"}, "printable"),
        ({"label": 7}, "printable"),
    ],
)
def test_a_wrong_request_is_refused_in_words(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        CaptureRequest.of({**FINE, **wrong})


class Source:
    """Commands are counted on; eleven at the first look, twelve at the next."""

    def __init__(self) -> None:
        self.count = 10

    def snapshot(self, at_ns: int | None = None) -> Snapshot:
        self.count += 1
        histograms = np.full((32, 64), self.count, np.uint64)
        return Snapshot(histograms, make_inflight([1_000]), {"events": 1}, 0)


def test_an_order_holds_what_was_and_gets_what_comes() -> None:
    recorder = FlightRecorder(1_000)
    recorder.append(make_events(5).view(RAW_EVENT))
    order = OnDemand(recorder, Source()).order(CaptureRequest.of(FINE), ["stats", "stacks"])
    recorder.append(make_events(3).view(RAW_EVENT))
    assert (order.anomaly.name, order.anomaly.type) == ("capture", "capture")
    assert order.anomaly.actions == ("stats", "stacks")
    assert order.trigger.reason == f"captured on demand for 3 s, process {os.getpid()}: slow upload"
    assert (order.target_pid, order.length_sec, order.live) == (os.getpid(), 3.0, True)
    assert len(order.evidence.events) == 5
    assert len(order.aftermath().events) == 3
    assert order.evidence.histograms_before is not None
    assert order.evidence.histograms_before[0, 0] == 11
    assert order.aftermath().histograms[0, 0] >= 12
    assert abs(order.evidence.wall_offset_ns + time.monotonic_ns() - time.time_ns()) < 1e9
