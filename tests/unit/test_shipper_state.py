import pytest

from shipper.shipper_state import STATE_FILE, FaultNote, StateFile


@pytest.fixture
def state(tmp_path):
    return StateFile(tmp_path)


def note(message="denied", since="2026-01-01T12:00:00+00:00", bundle=None):
    return FaultNote("destination", message, "allow it", since, bundle)


def test_note_says_since_when_and_is_written_once(state, tmp_path):
    state.write([note()])
    written = (tmp_path / STATE_FILE).stat().st_ino
    state.write([note(since="2026-01-02T12:00:00+00:00")])
    assert state.read() == [note()]
    assert (tmp_path / STATE_FILE).stat().st_ino == written
    state.write([])
    assert state.read() == []


def test_same_words_about_another_bundle_are_another_note(state):
    state.write([note(bundle="A")])
    later = note(since="2026-01-02T12:00:00+00:00", bundle="B")
    state.write([later])
    assert state.read() == [later]


@pytest.mark.parametrize("content", [b"", b"[]", b'{"faults": [1]}', b'{"faults": [{}]}', b"\xff"])
def test_spoiled_note_is_replaced(state, tmp_path, content):
    (tmp_path / STATE_FILE).write_bytes(content)
    assert state.read() == []
    state.write([note()])
    assert state.read() == [note()]
