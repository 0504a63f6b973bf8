"""The report over a fleet: states, order, table. On hosts: test_site.py."""

from __future__ import annotations

from typing import Any

import pytest

from tests.fleet.collection import load_plugin

report = load_plugin("plugin_utils/fleet_report")

WIDTH = 100


def answer(*faults: str, **differs: Any) -> dict[str, Any]:
    host = {
        "version": "0.1.0",
        "previous_version": "",
        "kernel": "6.1.0-32-amd64",
        "headers": "exact",
        "probes": "attached",
        "pending": 0,
        "oldest_pending_sec": None,
        "last_upload": None,
        "last_upload_sec": None,
        "faults": [{"part": "shipper", "message": text, "remedy": "mend it"} for text in faults],
    }
    return {"aod_answer": {"changed": False, "host": {**host, **differs}}}


FLEET: dict[str, dict[str, Any]] = {
    "web-1": answer(pending=3, oldest_pending_sec=7300.0, last_upload_sec=301.0),
    "web-2": answer(headers="fallback"),
    "web-3": answer("the bucket does not exist"),
    "web-4": {"aod_answer": {"unreachable": True, "msg": "connection refused"}},
    "web-5": {**answer(), "aod_reached": {}, "aod_outcome": "Assert: no room"},
    "web-6": {**answer(), "aod_reached": {}},
    "web-7": answer(version="", headers="", probes=""),
}


def test_trouble_comes_first_and_healthy_hosts_last() -> None:
    rows = report.rows_of(FLEET, FLEET, "done")
    assert [(row["host"], row["state"]) for row in rows] == [
        ("web-5", "failed"),
        ("web-6", "failed"),
        ("web-4", "unreachable"),
        ("web-3", "degraded"),
        ("web-7", "absent"),
        ("web-1", "healthy"),
        ("web-2", "healthy"),
    ]
    assert report.summary_line(rows) == (
        "2 healthy, 1 absent, 1 degraded, 1 unreachable, 2 failed; 1 with headers of another kernel"
    )
    assert [report.failure_of(row) for row in rows] == [
        "Assert: no room",
        "the host was not reached, or lost on the way",
        "connection refused",
        *("", "", "", ""),
    ]


def test_a_host_whose_turn_never_came_is_not_called_healthy() -> None:
    before = {"web-1": FLEET["web-1"], "web-5": FLEET["web-5"]}
    states = {row["host"]: row["state"] for row in report.rows_of(before, before, "not begun")}
    assert states == {"web-1": "not begun", "web-5": "failed"}


def test_the_table_is_aligned_and_fits() -> None:
    rows = report.rows_of(FLEET, FLEET, "done")
    lines = report.table(rows, WIDTH).splitlines()
    assert max(map(len, lines)) <= WIDTH
    title = lines[0]
    web_1 = next(line for line in lines if line.startswith("web-1"))
    for column, text in {"state": "healthy", "queue": "3, 2 h", "last upload": "5 min ago"}.items():
        assert web_1[title.index(column) :].startswith(text)
    fault = lines.index("  ! shipper: the bucket does not exist")
    assert lines[fault - 1].startswith("web-3")
    assert lines[fault + 1] == "    > mend it"


def test_a_host_speaks_for_itself_alone() -> None:
    forged = answer(
        "\x1b]0;all is well\x07", host="web-2", state="healthy", kernel="6.1\nweb-9 healthy"
    )
    rows = report.rows_of({"web-1": forged}, {"web-1": forged}, "done")
    assert [(row["host"], row["state"]) for row in rows] == [("web-1", "degraded")]
    lines = report.table(rows, WIDTH).splitlines()
    assert not any(line.startswith("web-9") for line in lines)
    assert "".join(lines).isprintable()


@pytest.mark.parametrize(
    "said", ["nothing", {}, {"pending": "many"}, {"last_upload_sec": "soon"}, {"faults": ["bad"]}]
)
def test_an_answer_that_is_none_fails_its_host_and_not_the_report(said: Any) -> None:
    good = answer()
    host = {**good["aod_answer"]["host"], **said} if isinstance(said, dict) and said else said
    fleet = {"web-1": {"aod_answer": {"host": host}}, "web-2": good}
    rows = report.rows_of(fleet, fleet, "done")
    assert [(row["host"], row["state"]) for row in rows] == [
        ("web-1", "failed"),
        ("web-2", "healthy"),
    ]
    assert report.table(rows, WIDTH)


def test_a_long_reason_is_wrapped() -> None:
    long = {"web-1": answer("word " * 60)}
    lines = report.table(report.rows_of(long, long, "done"), WIDTH).splitlines()
    assert max(map(len, lines)) <= WIDTH
    assert sum(line.count("word") for line in lines) == 60


def test_durations_are_in_the_largest_unit_that_fits() -> None:
    durations = [0.2, 59, 60, 7199, 7200, 86400 * 3]
    assert [report.duration(one) for one in durations] == [
        "0 s",
        "59 s",
        "1 min",
        "1 h",
        "2 h",
        "3 d",
    ]
