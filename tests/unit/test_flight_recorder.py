from __future__ import annotations

import threading

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from agent.events.flight_recorder import FlightRecorder
from agent.kernel.ring_buffer import RAW_EVENT
from tests.evidence import make_events


def raw(events: np.ndarray) -> np.ndarray:
    return events.view(RAW_EVENT)


def follow(recorder: FlightRecorder, position: int) -> np.ndarray:
    """Read and release everything from ``position`` on."""
    pieces = []
    while position < recorder.appended:
        view = recorder.view(position, recorder.appended)
        pieces.append(view.copy())
        position += len(view)
        recorder.release(position)
    return np.concatenate(pieces)


@given(st.lists(st.integers(0, 20), min_size=1, max_size=30))
def test_a_reader_that_keeps_up_sees_every_event_once_and_in_order(sizes: list[int]) -> None:
    recorder = FlightRecorder(32)
    events = make_events(sum(sizes))
    position = 0
    seen = [events[:0]]
    for size in sizes:
        recorder.append(raw(events[position : position + size]))
        if size:
            seen.append(follow(recorder, position))
        position += size
        expected = events[max(0, position - 32) : position]
        assert np.array_equal(recorder.history(position), expected)
    assert np.array_equal(np.concatenate(seen), events)


def test_the_writer_waits_for_a_reader_a_whole_recorder_behind() -> None:
    recorder = FlightRecorder(8)
    events = make_events(20)
    writer = threading.Thread(target=recorder.append, args=(raw(events),))
    writer.start()
    assert recorder.wait_beyond(7) == 8
    writer.join(0.05)
    assert writer.is_alive()
    assert np.array_equal(follow(recorder, 0)[:8], events[:8])
    while recorder.appended < 20:
        follow(recorder, recorder._released) if recorder.appended > recorder._released else None
    writer.join(10)
    assert not writer.is_alive()


def test_closing_and_poking_end_a_wait() -> None:
    for end in ("close", "poke"):
        recorder = FlightRecorder(8)
        result: list[int] = []
        waiter = threading.Thread(target=lambda r=recorder, o=result: o.append(r.wait_beyond(0)))
        waiter.start()
        while not result:
            getattr(recorder, end)()
        waiter.join(10)
        assert result == [0]


def test_history_of_an_empty_recorder_is_empty() -> None:
    assert len(FlightRecorder(8).history(0)) == 0
