import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.storage.ulid import new_ulid
from shipper.destinations.object_key import object_keys, safe_name
from tests.shipper_support import NOON

SHA256 = "ab" * 32


def test_key_names_host_day_and_anomaly():
    bundle_id = new_ulid(NOON)
    keys = object_keys("fleet/berlin", "filer-1.example.com", "slow_reads", bundle_id, SHA256)
    stem = f"fleet/berlin/filer-1.example.com/2026/01/01/{bundle_id}-slow_reads-abababababab"
    assert (keys.archive, keys.manifest) == (f"{stem}.tar.zst", f"{stem}.json")


@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "Pacific/Pago_Pago"])
def test_day_is_utc_wherever_the_host_stands(zone, monkeypatch):
    import time

    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        keys = object_keys("", "h", "a", new_ulid(NOON), SHA256)
    finally:
        monkeypatch.undo()
        time.tzset()
    assert "/2026/01/01/" in keys.archive


@pytest.mark.parametrize("prefix", ["", "/", "a", "/a/", "a//b", "../a", "./a/..", "a/../../b"])
def test_prefix_leads_nowhere_else(prefix):
    parts = object_keys(prefix, "h", "a", new_ulid(NOON), SHA256).archive.split("/")
    assert parts[-5:-1] == ["h", "2026", "01", "01"]
    assert not {"", ".", ".."} & set(parts)


@pytest.mark.parametrize("text", ["", ".", "..", "...", "/", "//", "-", "\0", "\n", "é", "_"])
def test_name_without_safe_characters_is_unknown(text):
    assert safe_name(text) == "unknown"


@given(host=st.text(), anomaly=st.text())
def test_hostile_names_cannot_leave_their_place(host, anomaly):
    bundle_id = new_ulid(NOON)
    key = object_keys("p", host, anomaly, bundle_id, SHA256).archive
    prefix, safe_host, *day, name = key.split("/")
    assert (prefix, day) == ("p", ["2026", "01", "01"])
    for part in (safe_host, name):
        assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", part)
        assert len(part) <= 200
    assert name.startswith(f"{bundle_id}-")
    assert name.endswith("-abababababab.tar.zst")


@given(st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,100}[A-Za-z0-9])?", fullmatch=True))
def test_harmless_names_stay_as_they_are(name):
    assert safe_name(name) == name


def test_time_beyond_the_calendar_is_refused():
    with pytest.raises(ValueError, match="year"):
        object_keys("", "h", "a", "7" + "Z" * 25, SHA256)
