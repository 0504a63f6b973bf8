import json
from dataclasses import replace
from pathlib import Path

import pytest

from shipper.configuration.schema import DirectoryDestination, ShipperConfig
from shipper.spools.state_directory import STATE_FILE, state_directory
from shipper.status.shipper_state import PAUSED, UNKNOWN, FaultNote, ShipperState, StateFile

FULL = ShipperState(
    state=PAUSED,
    faults=[FaultNote("network", "away", "look", "2026-01-01T12:00:00+00:00")],
    since="2026-01-01T12:00:00+00:00",
    next_try="2026-01-01T12:00:05+00:00",
    started="2026-01-01T11:00:00+00:00",
    updated="2026-01-01T12:00:01+00:00",
    last_success="2026-01-01T11:59:00+00:00",
    bytes_per_sec=12.5,
    shipped_bytes=1 << 40,
    failures={"network": 3},
    version="1.2.3",
)


@pytest.fixture
def state(tmp_path):
    return StateFile(tmp_path)


def note(message="denied", since="2026-01-01T12:00:00+00:00", bundle=None):
    return FaultNote("destination", message, "allow it", since, bundle)


def of(*notes):
    return ShipperState(faults=list(notes))


def test_what_is_written_is_read(state):
    state.write(FULL)
    assert state.read() == FULL


def test_note_says_since_when_and_is_written_once(state, tmp_path):
    state.write(of(note()))
    written = (tmp_path / STATE_FILE).stat().st_ino
    state.write(of(note(since="2026-01-02T12:00:00+00:00")))
    assert state.read() == of(note())
    assert (tmp_path / STATE_FILE).stat().st_ino == written
    state.write(of())
    assert state.read() == of()


def test_another_time_alone_is_not_written_and_anything_else_is(state):
    state.write(FULL)
    state.write(replace(FULL, updated="2026-01-01T13:00:00+00:00"))
    assert state.read() == FULL
    later = replace(FULL, updated="2026-01-01T13:00:00+00:00", failures={"network": 4})
    state.write(later)
    assert state.read() == later


def test_same_words_about_another_bundle_are_another_note(state):
    state.write(of(note(bundle="A")))
    later = note(since="2026-01-02T12:00:00+00:00", bundle="B")
    state.write(of(later))
    assert state.read() == of(later)
    assert state.read().pause_faults == []


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b'{"faults": [1]}',
        b'{"faults": [{}]}',
        b"\xff",
        b'{"faults": [], "failures": 1}',
        b'{"faults": [], "bytes_per_sec": "fast"}',
    ],
)
def test_spoiled_note_is_replaced(state, tmp_path, content):
    (tmp_path / STATE_FILE).write_bytes(content)
    assert state.read() == ShipperState()
    state.write(of(note()))
    assert state.read() == of(note())


def test_file_of_an_older_version_tells_its_faults(state, tmp_path):
    old = {"faults": [{"kind": "destination", "message": "denied", "remedy": "allow it"}]}
    old["faults"][0] |= {"since": "2026-01-01T12:00:00+00:00", "bundle": None}
    (tmp_path / STATE_FILE).write_text(json.dumps(old))
    assert state.read() == of(note())
    assert state.read().state == UNKNOWN


def test_state_lies_with_the_inboxes_where_there_are_any():
    config = ShipperConfig(Path("/spool"), DirectoryDestination(Path("/bucket")))
    assert state_directory(config) == Path("/spool/batches")
    assert state_directory(replace(config, inbox=Path("/inbox"))) == Path("/inbox")
