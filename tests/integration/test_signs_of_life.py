"""Heartbeats and figures of the service, seen from the store, the file and the port."""

import json
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from shipper.configuration.schema import DirectoryDestination, MetricsConfig, ShipperConfig
from shipper.faults import NetworkFault
from shipper.service.signs_of_life import RETRY_SEC, SignsOfLife
from tests.minio_server import free_port
from tests.shipper_support import FaultyDestination, add_bundle, new_spool


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def root(tmp_path):
    return tmp_path / "bucket"


@pytest.fixture
def signs(tmp_path, root, clock):
    """A function: signs into a store with these faults, and settings."""
    new_spool(tmp_path / "spool")
    opened = []

    def make(*faults, **changes):
        config = ShipperConfig(tmp_path / "spool", DirectoryDestination(root), **changes)
        destination = FaultyDestination(root, *faults)
        opened.append(SignsOfLife(config, destination, clock))
        return opened[-1], destination

    yield make
    for one in opened:
        one.close()


def scrape(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
        return answer.read().decode()


def heartbeats(root):
    return {path.parent.name: json.loads(path.read_bytes()) for path in root.rglob("heart*.json")}


def test_heartbeat_comes_at_once_and_then_by_its_interval(signs, root, clock, tmp_path):
    add_bundle(new_spool(tmp_path / "spool"))
    living, store = signs(heartbeat_interval_sec=900)
    assert living.due_sec(reachable=True) == 0
    assert living.give(reachable=True) is None
    (told,) = heartbeats(root).values()
    assert (told["pending"], told["interval_sec"]) == (1, 900)
    assert living.due_sec(reachable=True) == 900
    clock.now = 899
    living.give(reachable=True)
    assert len(store.seen) == 1
    clock.now = 900
    living.give(reachable=True)
    assert len(store.seen) == 2


def test_store_that_is_away_is_left_alone_and_none_means_none(signs, clock):
    living, store = signs()
    assert living.due_sec(reachable=False) == float("inf")
    living.give(reachable=False)
    silent, silent_store = signs(heartbeat_interval_sec=0)
    assert silent.due_sec(reachable=True) == float("inf")
    silent.give(reachable=True)
    assert store.seen == silent_store.seen == []


def test_heartbeat_that_failed_is_told_of_and_tried_again_soon(signs, root, clock):
    living, _ = signs(NetworkFault("lost"))
    assert living.give(reachable=True).message == "lost"
    assert living.due_sec(reachable=True) == RETRY_SEC
    clock.now = RETRY_SEC
    assert living.give(reachable=True) is None
    assert len(heartbeats(root)) == 1


def test_heartbeats_of_inboxes_are_forwarded_once_each_under_the_inboxs_name(
    signs, root, clock, tmp_path
):
    inbox = tmp_path / "inbox"
    for host in ("web-1", "web-2", "web-3", "web-4"):
        new_spool(inbox / host)
    sent = {"schema": 1, "host": "somebody-else", "pending": 7}
    (inbox / "web-1" / "heartbeat.json").write_text(json.dumps(sent))
    (inbox / "web-2" / "heartbeat.json").write_text("no heartbeat")
    (inbox / "web-3" / "heartbeat.json").symlink_to(inbox / "web-1" / "heartbeat.json")
    living, store = signs(inbox=inbox)
    assert living.give(reachable=True) is None
    told = heartbeats(root)
    assert told.keys() == {"web-1", *(told.keys() - {"web-1", "web-2", "web-3", "web-4"})}
    assert (told["web-1"]["host"], told["web-1"]["pending"]) == ("web-1", 7)
    assert told["web-1"]["relayed_at"]
    clock.now = 900
    living.give(reachable=True)
    assert [key for key in store.seen if key.startswith("web-1")] == ["web-1/heartbeat.json"]


def test_file_is_kept_fresh_also_while_the_store_is_away(signs, tmp_path, clock):
    path = tmp_path / "aod.prom"
    living, _ = signs(metrics=MetricsConfig(file=path), scan_interval_sec=300)
    living.give(reachable=False)
    assert "aod_shipper_pending" in path.read_text()
    path.unlink()
    clock.now = 300
    assert living.due_sec(reachable=False) == 0
    living.give(reachable=False)
    assert path.exists()


def test_file_that_cannot_be_written_hinders_nothing_and_is_told_once(signs, clock, root, caplog):
    living, _ = signs(metrics=MetricsConfig(file=Path("/proc/nothing/aod.prom")))
    assert living.give(reachable=True) is None
    assert len(heartbeats(root)) == 1
    clock.now += living.due_sec(reachable=False)
    living.give(reachable=False)
    (told,) = caplog.messages
    assert told.startswith("no metrics: /proc/nothing/aod.prom: No such file or directory")
    assert "ReadWritePaths=" in told


def test_port_answers_until_it_is_closed(signs, tmp_path):
    port = free_port()
    add_bundle(new_spool(tmp_path / "spool"))
    living, _ = signs(metrics=MetricsConfig(port=port))
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
        assert b"aod_shipper_pending" in answer.read()
    living.close()
    with pytest.raises(OSError, match="refused"):
        opener.open(f"http://127.0.0.1:{port}/metrics", timeout=60)


def test_scrapes_at_the_same_time_take_the_memory_of_one(tmp_path, root):
    class Counts(FaultyDestination):
        inside, most = 0, 0
        lock = threading.Lock()

        @property
        def description(self):
            with self.lock:
                self.inside += 1
                self.most = max(self.most, self.inside)
            time.sleep(0.01)
            with self.lock:
                self.inside -= 1
            return "store"

    port, store = free_port(), Counts(root)
    metrics = MetricsConfig(port=port)
    config = ShipperConfig(
        new_spool(tmp_path / "spool").root, DirectoryDestination(root), metrics=metrics
    )
    living = SignsOfLife(config, store)
    try:
        with ThreadPoolExecutor(8) as threads:
            answers = threads.map(lambda _: scrape(port), range(16))
            assert all("aod_shipper_up" in answer for answer in answers)
    finally:
        living.close()
    assert store.most == 1
