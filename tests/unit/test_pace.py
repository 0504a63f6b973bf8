"""The limit of bandwidth, on a clock that only its waits move."""

from __future__ import annotations

import pytest

from agent.service.stop_signal import StopSignal
from shipper.configuration.schema import LimitsConfig
from shipper.destinations.pace import Pace, make_pace


class TestClock(StopSignal):
    """A stop signal whose waits pass at once, and the clock that they move."""

    __test__ = False

    def __init__(self) -> None:
        super().__init__()
        self.now = 100.0

    def wait(self, timeout_sec: float | None) -> bool:
        if not self.is_set():
            self.now += timeout_sec or 0
        return self.is_set()


@pytest.fixture
def clock():
    return TestClock()


def test_what_is_sent_takes_its_time(clock):
    pace = Pace(1000, clock, lambda: clock.now)
    for _ in range(11):
        pace.take(500)
    assert clock.now == pytest.approx(105), "ten of them had to be over before the last began"


def test_nothing_is_saved_up_while_nobody_sends(clock):
    pace = Pace(1000, clock, lambda: clock.now)
    pace.take(1000)
    clock.now += 3600
    for _ in range(3):
        pace.take(1000)
    assert clock.now == pytest.approx(100 + 3600 + 2)


def test_first_byte_does_not_wait(clock):
    Pace(1, clock, lambda: clock.now).take(1_000_000)
    assert clock.now == 100


def test_stop_ends_the_waits():
    stop = StopSignal()
    stop.set()
    pace = Pace(1, stop)
    for _ in range(3):
        pace.take(100_000)  # would take days


def test_limit_is_in_megabytes_and_none_costs_nothing(clock):
    assert make_pace(LimitsConfig(bandwidth_mb_per_sec=0), clock) is None
    pace = make_pace(LimitsConfig(bandwidth_mb_per_sec=2), clock)
    assert pace is not None
    pace.take(1_000_000)
    before = clock.now
    pace.take(1)
    assert clock.now - before == pytest.approx(0.5, rel=0.05)
