"""One cause, one incident, one bundle: also over a restart."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from agent.detection import incident_store
from agent.detection.incident_store import IncidentStore
from agent.detection.incidents import IncidentLimits, IncidentTracker

SECOND = 1_000_000_000
LIMITS = IncidentLimits(quiet_ns=60 * SECOND, followup_ns=600 * SECOND, max_followups=2)


@pytest.fixture
def tracker() -> IncidentTracker:
    return IncidentTracker(LIMITS)


def orders(tracker: IncidentTracker, *triggers: tuple[str, str, int]) -> list[int]:
    """For each trigger (cause, rule, second) the number of the bundle it gets, or 0."""
    found = [tracker.take(cause, rule, second * SECOND) for cause, rule, second in triggers]
    return [order.number if order else 0 for order in found]


def test_triggers_of_one_server_are_one_incident_whatever_the_rule(
    tracker: IncidentTracker,
) -> None:
    assert orders(
        tracker, ("a", "slow", 0), ("a", "hang", 30), ("a", "lost", 89), ("a", "slow", 140)
    ) == [1, 0, 0, 0]
    assert (tracker.opened, tracker.suppressed) == (1, 3)
    (incident,) = tracker.open()
    assert incident.rules == {"slow": 2, "hang": 1, "lost": 1}


def test_two_servers_are_two_incidents(tracker: IncidentTracker) -> None:
    assert orders(tracker, ("a", "slow", 0), ("b", "slow", 1), ("a", "slow", 2)) == [1, 1, 0]
    assert tracker.opened == 2


def test_an_unknown_cause_is_that_of_what_lasts(tracker: IncidentTracker) -> None:
    assert orders(tracker, ("", "drift", 0), ("a", "slow", 10), ("", "drift", 20)) == [1, 0, 0]
    (incident,) = tracker.open()
    assert incident.cause == "a"


def test_it_is_over_when_it_was_quiet_and_that_is_told_once(tracker: IncidentTracker) -> None:
    orders(tracker, ("a", "slow", 0), ("b", "slow", 30), ("a", "slow", 50))
    assert tracker.next_end_ns() == 90 * SECOND + 1
    assert tracker.end_quiet(90 * SECOND) == []
    assert [incident.cause for incident in tracker.end_quiet(91 * SECOND)] == ["b"]
    assert [incident.cause for incident in tracker.end_quiet(500 * SECOND)] == ["a"]
    assert tracker.end_quiet(500 * SECOND) == []
    assert (tracker.ended, tracker.next_end_ns()) == (2, None)
    assert orders(tracker, ("a", "slow", 501)) == [1]


def test_a_lasting_incident_gets_few_further_bundles(tracker: IncidentTracker) -> None:
    every_second = [("a", "slow", second) for second in range(3_000)]
    found = orders(tracker, *every_second)
    assert {second: number for second, number in enumerate(found) if number} == {
        0: 1,
        600: 2,
        1_200: 3,
    }
    (incident,) = tracker.open()
    assert len(set(incident.bundles)) == 3


def test_a_failed_bundle_gets_another_chance_later(tracker: IncidentTracker) -> None:
    order = tracker.take("a", "slow", 0)
    assert order is not None
    tracker.collection_failed(order.bundle_id)
    tracker.collection_failed("unknown")
    assert orders(tracker, ("a", "slow", 59), ("a", "slow", 60), ("a", "slow", 119)) == [0, 1, 0]


class Disk:
    """A store in a directory, and the bundles that are really there."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "incidents.json"
        self.made: set[str] = set()
        self.store = IncidentStore(self.path, self.made.__contains__)

    def start(self) -> IncidentTracker:
        tracker = IncidentTracker(LIMITS)
        tracker.resume(self.store.load(), self.store.save)
        return tracker


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk(tmp_path)


def test_a_restarted_agent_goes_on_with_the_incident(disk: Disk) -> None:
    order = disk.start().take("a", "slow", 1_000 * SECOND)
    assert order is not None
    disk.made.add(order.bundle_id)
    tracker = disk.start()
    assert tracker.take("a", "slow", 1_030 * SECOND) is None
    (incident,) = tracker.open()
    assert (incident.id, incident.bundles) == (order.incident_id, [order.bundle_id])
    assert [over.id for over in tracker.end_quiet(1_100 * SECOND)] == [incident.id]
    assert disk.start().open() == []


def test_a_bundle_that_a_kill_prevented_is_made_at_the_next_trigger(disk: Disk) -> None:
    order = disk.start().take("a", "slow", 1_000 * SECOND)
    again = disk.start().take("a", "slow", 1_001 * SECOND)
    assert order is not None
    assert again is not None
    assert (again.incident_id, again.number) == (order.incident_id, 1)
    assert again.bundle_id != order.bundle_id


def test_a_long_incident_is_still_young_after_a_restart(disk: Disk) -> None:
    tracker = disk.start()
    order = tracker.take("a", "slow", 0)
    assert order is not None
    disk.made.add(order.bundle_id)
    for second in range(1, 300):
        tracker.take("a", "slow", second * SECOND)
    assert disk.start().take("a", "slow", 340 * SECOND) is None


def test_after_a_reboot_the_wall_clock_counts(
    disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = disk.start().take("a", "slow", 1_000 * SECOND)
    assert order is not None
    disk.made.add(order.bundle_id)
    # This boot began 990 s later than the one that wrote the file.
    document = json.loads(disk.path.read_text())
    document["wall_offset_ns"] -= 990 * SECOND
    document["boot_id"] = "another"
    disk.path.write_text(json.dumps(document))
    tracker = disk.start()
    (incident,) = tracker.open()
    assert abs(incident.last_ns - 10 * SECOND) < SECOND, "needs a host that is up for some seconds"
    assert tracker.take("a", "slow", 30 * SECOND) is None


def test_a_clock_set_back_over_a_reboot_does_not_put_incidents_into_the_future(
    disk: Disk,
) -> None:
    disk.start().take("a", "slow", time.monotonic_ns())
    document = json.loads(disk.path.read_text())
    document["wall_offset_ns"] += 86_400 * SECOND
    document["boot_id"] = "another"
    disk.path.write_text(json.dumps(document))
    (incident,) = disk.start().open()
    assert incident.last_ns <= time.monotonic_ns()


def test_what_a_killed_run_left_of_the_file_goes(disk: Disk) -> None:
    leftover = disk.path.with_name(".incidents.json.0011aabb.tmp")
    leftover.write_text("{")
    assert disk.start().open() == []
    assert not leftover.exists()


@pytest.mark.parametrize(
    "content", [b"", b"\xff", b"[]", b"{}", b'{"boot_id": 1, "open": [{}]}', b"null"]
)
def test_a_file_without_sense_is_no_incident(disk: Disk, content: bytes) -> None:
    disk.path.write_bytes(content)
    assert disk.start().open() == []


def test_a_disk_that_takes_nothing_does_not_stop_detection(disk: Disk, tmp_path: Path) -> None:
    store = IncidentStore(tmp_path / "absent" / "incidents.json", lambda _: False)
    tracker = IncidentTracker(LIMITS)
    tracker.resume(store.load(), store.save)
    assert tracker.take("a", "slow", 0) is not None


def test_the_boot_is_known_here() -> None:
    assert len(incident_store.BOOT_ID.read_text().strip()) == 36
