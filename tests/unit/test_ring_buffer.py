from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.kernel.ring_buffer import BUSY, DISCARDED, EVENT_BYTES, RECORD_BYTES
from tests.evidence import make_events
from tests.ring import FakeRing


def test_events_come_out_as_they_went_in_and_their_space_is_freed() -> None:
    ring = FakeRing()
    events = make_events(100)
    ring.put_events(events)

    assert ring.reader.pending() == 100
    assert np.array_equal(ring.drain(), events)
    assert ring.consumed == ring.produced
    assert ring.reader.pending() == 0
    assert len(ring.drain()) == 0


@pytest.mark.parametrize("start", [0, 72 * 7, (1 << 16) - 8, (1 << 16) - 72, 5 * (1 << 16) - 40])
def test_a_batch_across_the_end_of_the_data_is_whole(start: int) -> None:
    ring = FakeRing()
    ring.start_at(start)
    events = make_events(500)
    ring.put_events(events)
    assert np.array_equal(ring.drain(), events)


def test_a_limit_leaves_the_rest_for_the_next_call() -> None:
    ring = FakeRing()
    events = make_events(10)
    ring.put_events(events)
    assert np.array_equal(ring.drain(most=4), events[:4])
    assert np.array_equal(ring.drain(most=100), events[4:])


def test_stops_before_a_record_still_being_written() -> None:
    ring = FakeRing()
    events = make_events(3)
    ring.put_events(events[:1])
    busy = ring.put(events[1].tobytes(), header=EVENT_BYTES | BUSY)
    ring.put_events(events[2:])

    assert np.array_equal(ring.drain(), events[:1])
    assert len(ring.drain()) == 0
    assert ring.reader.bad_records == 0

    ring.set_header(busy, EVENT_BYTES)
    assert np.array_equal(ring.drain(), events[1:])


def test_a_discarded_record_is_passed_over_and_counted() -> None:
    ring = FakeRing()
    events = make_events(3)
    ring.put_events(events[:1])
    ring.put(events[1].tobytes(), header=EVENT_BYTES | DISCARDED)
    ring.put_events(events[2:])

    seen = [ring.drain(), ring.drain(), ring.drain()]
    assert np.array_equal(np.concatenate(seen), events[[0, 2]])
    assert ring.reader.bad_records == 1


def test_a_header_that_makes_no_sense_loses_what_follows_and_counts_it() -> None:
    ring = FakeRing()
    events = make_events(5)
    ring.put_events(events[:2])
    ring.put(events[2].tobytes(), header=12_345)
    ring.put_events(events[3:])

    assert np.array_equal(ring.drain(), events[:2])
    assert len(ring.drain()) == 0
    assert ring.reader.bad_records == 3
    assert ring.consumed == ring.produced

    ring.put_events(events)
    assert np.array_equal(ring.drain(), events)


@pytest.mark.parametrize("produced", [2**63, 7, (1 << 16) + 8, 2**64 - 8])
def test_positions_that_make_no_sense_are_resynchronised(produced: int) -> None:
    ring = FakeRing()
    ring.move_producer(produced)
    assert len(ring.drain()) == 0
    assert ring.reader.bad_records > 0

    start = produced - produced % 8
    ring.start_at(start % 2**62)
    events = make_events(3)
    ring.put_events(events)
    assert np.array_equal(ring.drain(), events)


def test_less_than_a_record_is_not_waited_for_for_ever() -> None:
    ring = FakeRing()
    ring.put(b"tiny")
    assert len(ring.drain()) == 0
    assert ring.reader.bad_records == 1
    assert ring.consumed == ring.produced


@settings(max_examples=150, deadline=None)
@given(noise=st.binary(max_size=400), produced=st.integers(0, 2**64 - 1), seed=st.integers(0, 99))
def test_random_bytes_never_crash_nor_stall_the_reader(
    noise: bytes, produced: int, seed: int
) -> None:
    ring = FakeRing(size=1 << 12)
    ring.put_events(make_events(3, seed=seed))
    for index, byte in enumerate(noise):
        ring._set(RECORD_BYTES + index, byte)
    ring.move_producer(produced)
    for _ in range(60):
        ring.drain()
    # It caught up, or it waits for a record that says it is still being written.
    assert ring.produced - ring.consumed < 8 or ring.header_at(ring.consumed) & BUSY
