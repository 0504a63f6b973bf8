"""The LogCollector in a thread, with real children and a real spool."""

from __future__ import annotations

import dataclasses
import errno
import gc
import os
import shutil
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.collection import collection_loop
from agent.collection.bundle import BundleWriter
from agent.collection.collection_tally import Listener
from agent.collection.log_collector import MAX_WAITING, LogCollector
from agent.collection.quick_action import Argv, Command, Kind, QuickAction
from agent.collection.surroundings import HostFacts, Surroundings
from agent.configuration.schema import CollectionConfig
from agent.detection.anomaly import AnomalyAction
from agent.storage.spool import Spool, SpooledBundle
from tests.evidence import Journal, make_action, wait_until

HOST = HostFacts("client-7", "6.1.0-test", "9.9.9")
EVIDENCE = {
    "events.npy",
    "histograms.json",
    "inflight.jsonl",
    "labels.jsonl",
    "worst_events.jsonl",
}
CONFIG = CollectionConfig(action_timeout_sec=60, after_sec=0)


def command(name: str, *argv: str) -> QuickAction:
    commands: list[Argv] = [argv]
    wanted = [Command(argv) for argv in commands]
    return QuickAction(name, f"{name}.log", Kind.CMD, lambda _: wanted, "for a test")


def statuses(bundle: SpooledBundle) -> dict[str, str]:
    """What became of each action."""
    return {result["name"]: result["status"] for result in bundle.manifest()["actions"]}


class Bench:
    """A collector with its surroundings; `start` runs it in a thread."""

    def __init__(self, directory: Path) -> None:
        self.spool = Spool(directory / "spool")
        self.spool.prepare()
        self.journal = Journal(directory)
        self.published: list[SpooledBundle] = []
        self.failed: list[AnomalyAction] = []
        self.gate = directory / "gate"
        self.started = directory / "started"
        self.started.mkdir()
        self.collector = self.make_collector([command("echo", "echo", "hello")])
        self.thread = threading.Thread(target=self.run)

    def make_collector(self, actions: list[QuickAction]) -> LogCollector:
        self.collector = LogCollector(
            self.spool,
            CONFIG,
            self.journal.audit,
            Surroundings(HOST, actions=actions),
            Listener(self.published.append, self.failed.append),
        )
        return self.collector

    def waiting_action(self) -> QuickAction:
        """Leaves a file in ``started``, then waits until ``gate`` exists."""
        program = (
            "import os, sys, time\n"
            "open(os.path.join(sys.argv[1], str(os.getpid())), 'w').close()\n"
            "while not os.path.exists(sys.argv[2]): time.sleep(0.01)"
        )
        argv = (sys.executable, "-S", "-c", program, str(self.started), str(self.gate))
        return command("waits", *argv)

    def running(self) -> int:
        return len(list(self.started.iterdir()))

    def run(self) -> None:
        self.collector.run()

    def start(self) -> None:
        self.thread.start()

    def finish(self) -> None:
        self.gate.touch()
        self.collector.drain()
        if self.thread.is_alive():
            self.thread.join(60)
        assert not self.thread.is_alive()

    def answers(self) -> bool:
        answered = threading.Event()
        self.collector.ping(answered.set)
        return answered.wait(20)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.finish()
    bench.journal.close()


def test_an_order_becomes_a_bundle(bench: Bench) -> None:
    bench.start()
    order = make_action(actions=("echo",))
    assert bench.collector.submit(order)
    wait_until(lambda: bool(bench.published))
    (bundle,) = bench.spool.finished()
    assert bench.published == [bundle]
    manifest = bundle.manifest()
    assert manifest["actions"][0]["name"] == "echo"
    assert {entry["name"] for entry in manifest["files"]} >= {"echo.log", "events.npy"}
    assert list(bench.spool.staging.iterdir()) == []
    statistics = bench.collector.statistics()
    assert (statistics.collected, statistics.failed, statistics.running) == (1, 0, 0)
    assert statistics.last_bundle_id == order.id
    (entry,) = bench.journal.entries()
    assert (entry["AOD_EVENT"], entry["AOD_BUNDLE"]) == ("collection", order.id)


def test_only_the_rules_actions_run(bench: Bench) -> None:
    bench.make_collector([command("one", "echo"), command("two", "echo"), command("six", "echo")])
    bench.start()
    bench.collector.submit(make_action(actions=("six", "one")))
    wait_until(lambda: bool(bench.published))
    assert [result["name"] for result in bench.published[0].manifest()["actions"]] == ["one", "six"]


def test_a_failing_action_stops_no_other(bench: Bench) -> None:
    bench.make_collector([command("bad", "ls", "/no/such"), command("good", "echo", "x")])
    bench.start()
    bench.collector.submit(make_action(actions=("bad", "good")))
    wait_until(lambda: bool(bench.published))
    assert statuses(bench.published[0]) == {"bad": "failed", "good": "ok"}


def test_four_collections_at_once_and_drain_works_off_the_rest(bench: Bench) -> None:
    bench.make_collector([bench.waiting_action()])
    bench.start()
    orders = [make_action(actions=("waits",)) for _ in range(10)]
    for order in orders:
        assert bench.collector.submit(order)
    wait_until(lambda: bench.running() == 4)
    assert bench.answers(), "a collection that waits must not block the loop"
    assert bench.running() == 4
    assert bench.collector.statistics().running == 4
    bench.collector.drain()
    assert not bench.collector.submit(make_action(actions=("waits",)))
    bench.finish()
    bundles = bench.spool.finished()
    assert {bundle.id for bundle in bundles} == {order.id for order in orders}
    assert [statuses(bundle) for bundle in bundles] == [{"waits": "ok"}] * 10
    statistics = bench.collector.statistics()
    assert (statistics.collected, statistics.refused, statistics.running) == (10, 1, 0)


@pytest.mark.parametrize("drain_first", [False, True])
def test_stop_cuts_the_actions_and_publishes_every_order(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, drain_first: bool
) -> None:
    monkeypatch.setattr(collection_loop, "STOP_GRACE_SEC", 0.2)
    bench.make_collector([command("quick", "echo", "hello"), bench.waiting_action()])
    bench.start()
    orders = [make_action(actions=("quick", "waits")) for _ in range(4 + MAX_WAITING)]
    for order in orders:
        assert bench.collector.submit_waiting(order)
    wait_until(lambda: bench.running() == 4)
    if drain_first:
        bench.collector.drain()
    bench.collector.stop()
    bench.thread.join(40)  # the actions themselves would take 60 s, each four of them
    assert not bench.thread.is_alive()
    assert not bench.collector.submit_waiting(make_action())
    bundles = {bundle.id: bundle for bundle in bench.spool.finished()}
    assert set(bundles) == {order.id for order in orders}
    assert bench.running() == 4, "none was begun after the stop"
    found = [statuses(bundles[order.id]) for order in orders]
    assert found[:4] == [{"quick": "ok", "waits": "stopped"}] * 4
    assert found[4:] == [{"quick": "not_run", "waits": "not_run"}] * MAX_WAITING
    files = {entry["name"] for entry in bundles[orders[-1].id].manifest()["files"]}
    assert files == EVIDENCE


def test_an_action_that_ends_within_the_grace_is_whole(bench: Bench) -> None:
    bench.make_collector([bench.waiting_action()])
    bench.start()
    bench.collector.submit(make_action(actions=("waits",)))
    wait_until(lambda: bench.running() == 1)
    bench.collector.stop()
    bench.collector.submit(make_action())
    bench.finish()
    assert statuses(bench.published[0]) == {"waits": "ok"}


def test_who_is_patient_waits_for_room(bench: Bench) -> None:
    bench.make_collector([bench.waiting_action()])
    bench.start()
    orders = [make_action(actions=("waits",)) for _ in range(4 + MAX_WAITING)]
    for order in orders:
        assert bench.collector.submit_waiting(order)
    accepted: list[bool] = []
    patient = threading.Thread(
        target=lambda: accepted.append(bench.collector.submit_waiting(make_action()))
    )
    patient.start()
    assert bench.answers(), "the collector does not wait for who waits for it"
    assert accepted == []
    bench.gate.touch()
    patient.join(20)
    assert accepted == [True]
    bench.finish()
    statistics = bench.collector.statistics()
    assert (statistics.collected, statistics.refused) == (len(orders) + 1, 0)


def test_a_stop_ends_the_wait_for_room(bench: Bench) -> None:
    for _ in range(MAX_WAITING):
        assert bench.collector.submit(make_action())
    accepted: list[bool] = []
    patient = threading.Thread(
        target=lambda: accepted.append(bench.collector.submit_waiting(make_action()))
    )
    patient.start()
    bench.collector.stop()
    patient.join(20)
    assert accepted == [False]
    assert bench.collector.statistics().refused == 1
    bench.start()
    bench.thread.join(60)
    assert bench.collector.statistics().collected == MAX_WAITING


def test_an_order_is_let_go_when_its_bundle_is_there(bench: Bench) -> None:
    """It holds megabytes, and the loop then sleeps, perhaps for weeks."""
    bench.start()
    order = make_action(actions=("echo",))
    last = weakref.ref(order)
    bench.collector.submit(order)
    del order
    wait_until(lambda: bool(bench.published))
    assert bench.answers()
    wait_until(lambda: gc.collect() >= 0 and last() is None)


def test_a_storm_is_bounded_and_what_is_refused_is_counted(bench: Bench) -> None:
    bench.make_collector([bench.waiting_action()])
    bench.start()
    for _ in range(4):
        bench.collector.submit(make_action(actions=("waits",)))
    wait_until(lambda: bench.running() == 4)
    accepted = [bench.collector.submit(make_action()) for _ in range(MAX_WAITING + 3)]
    assert accepted == [True] * MAX_WAITING + [False] * 3
    assert bench.collector.statistics().refused == 3
    events = [entry["AOD_EVENT"] for entry in bench.journal.entries()]
    assert events == ["collection_failed"] * 3
    bench.finish()
    assert bench.collector.statistics().collected == 4 + MAX_WAITING


def test_orders_from_before_the_start_are_collected(bench: Bench) -> None:
    order = make_action(actions=("echo",))
    bench.collector.submit(order)
    bench.collector.stop()
    bench.start()
    bench.thread.join(60)
    assert [bundle.id for bundle in bench.spool.finished()] == [order.id]


def test_stop_without_any_order_ends_it(bench: Bench) -> None:
    bench.start()
    bench.collector.stop()
    bench.thread.join(20)
    assert not bench.thread.is_alive()


def test_it_answers_pings_idle_and_working(bench: Bench) -> None:
    bench.start()
    assert bench.answers()
    bench.collector.submit(make_action(actions=("echo",)))
    assert bench.answers()
    wait_until(lambda: bool(bench.published))
    assert bench.answers()


def test_it_can_be_run_again(bench: Bench) -> None:
    """A supervisor starts `run` anew after a fault; what waited is not lost."""
    crashes = []

    def crash_once() -> None:
        crashes.append(1)
        raise RuntimeError("a fault in the loop")

    def run_twice() -> None:
        with pytest.raises(RuntimeError):
            bench.collector.run()
        bench.collector.run()

    bench.thread = threading.Thread(target=run_twice)
    bench.collector.submit(make_action(actions=("echo",)))
    bench.start()
    wait_until(lambda: len(bench.published) == 1)
    bench.collector.ping(crash_once)
    wait_until(lambda: crashes == [1])
    bench.collector.submit(make_action(actions=("echo",)))
    wait_until(lambda: len(bench.published) == 2)


REMOVALS: dict[str, Callable[[Spool], None]] = {
    "everything": lambda spool: shutil.rmtree(spool.root),
    "staging": lambda spool: shutil.rmtree(spool.staging),
    "batches": lambda spool: shutil.rmtree(spool.batches),
}


@pytest.mark.parametrize("removed", REMOVALS)
def test_a_spool_that_vanished_is_made_anew(bench: Bench, removed: str) -> None:
    REMOVALS[removed](bench.spool)
    bench.start()
    bench.collector.submit(make_action(actions=("echo",)))
    wait_until(lambda: bool(bench.published))
    assert bench.spool.counts().made == 1
    assert bench.published[0].manifest()["actions"][0]["status"] == "ok"
    events = [entry["AOD_EVENT"] for entry in bench.journal.entries()]
    assert events == ["spool_recreated", "collection"]


def test_a_spool_removed_during_a_collection_is_made_anew(bench: Bench) -> None:
    bench.make_collector([bench.waiting_action()])
    bench.start()
    bench.collector.submit(make_action(actions=("waits",)))
    wait_until(lambda: bench.running() == 1)
    wait_until(lambda: any(bench.spool.staging.glob("*/manifest.json")))
    shutil.rmtree(bench.spool.root)
    bench.gate.touch()
    wait_until(lambda: bool(bench.published))
    assert bench.spool.counts().made == 1
    assert bench.collector.statistics().failed == 0


def test_a_spool_that_cannot_be_made_is_counted_and_survived(bench: Bench) -> None:
    shutil.rmtree(bench.spool.root)
    bench.spool.root.write_text("a file is in the way")
    bench.start()
    bench.collector.submit(make_action(actions=("echo",)))
    wait_until(lambda: bool(bench.failed))
    assert [lost.anomaly.name for lost in bench.failed] == ["latency"]
    assert "NotADirectoryError" in bench.collector.statistics().last_failure
    assert bench.journal.entries()[-1]["AOD_EVENT"] == "collection_failed"
    bench.spool.root.unlink()
    bench.collector.submit(make_action(actions=("echo",)))
    wait_until(lambda: bench.collector.statistics().collected == 1)
    assert len(bench.failed) == 1


def test_idle_it_neither_wakes_nor_loads_the_event_loop(tmp_path: Path) -> None:
    """In a process of its own, for a clean count of context switches and modules."""
    program = (
        "import sys, threading, time, pathlib\n"
        "from agent.service.audit import Audit\n"
        "from agent.configuration.schema import CollectionConfig\n"
        "from agent.collection.log_collector import LogCollector\n"
        "from agent.storage.spool import Spool\n"
        "config = CollectionConfig(after_sec=0)\n"
        "collector = LogCollector(Spool(pathlib.Path(sys.argv[1])), config, Audit())\n"
        "thread = threading.Thread(target=collector.run)\n"
        "thread.start()\n"
        "def switches():\n"
        "    text = open(f'/proc/self/task/{thread.native_id}/status').read()\n"
        "    return int(text.split('voluntary_ctxt_switches:')[1].split()[0])\n"
        "def settled():\n"
        "    before = switches(); time.sleep(0.5); return switches() == before\n"
        "ended = any(settled() for _ in range(20))\n"
        "print(ended, 'asyncio' in sys.modules)\n"
        "collector.stop()\n"
        "thread.join()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert done.stdout.split() == ["True", "False"]


def test_captures_of_people_take_no_incidents_place(bench: Bench) -> None:
    bench.make_collector([bench.waiting_action(), command("echo", "echo", "hello")])
    bench.start()
    for _ in range(CONFIG.max_concurrent):
        capture = dataclasses.replace(make_action(actions=("waits",)), length_sec=0.0)
        assert bench.collector.submit(capture)
    wait_until(lambda: bench.running() == CONFIG.max_concurrent)
    incident = make_action(actions=("echo",))
    bench.collector.submit(incident)
    wait_until(lambda: bool(bench.published))
    assert [bundle.id for bundle in bench.published] == [incident.id]


def test_without_a_draft_there_is_still_a_bundle(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One fault of ours: the disk takes no draft, and later the bundle."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(BundleWriter, "draft", full)
    bench.start()
    bench.collector.submit(make_action(actions=("echo",)))
    wait_until(lambda: bool(bench.published))
    assert statuses(bench.published[0]) == {"echo": "ok"}


def test_a_file_that_is_missing_elsewhere_is_no_vanished_spool(bench: Bench) -> None:
    """The work is not done twice for it."""
    tries = []

    def no_room(_: int) -> None:
        tries.append(1)
        raise FileNotFoundError(errno.ENOENT, "No such file", "/elsewhere")

    bench.collector = LogCollector(
        bench.spool,
        CONFIG,
        bench.journal.audit,
        Surroundings(HOST, room_for_bundle=no_room),
        Listener(bench.published.append, bench.failed.append),
    )
    bench.start()
    bench.collector.submit(make_action())
    wait_until(lambda: bool(bench.failed))
    assert tries == [1]
    assert [entry["AOD_EVENT"] for entry in bench.journal.entries()] == ["collection_failed"]


def test_room_is_asked_for_all_that_is_under_way(bench: Bench) -> None:
    asked: list[int] = []
    bench.collector = LogCollector(
        bench.spool,
        CONFIG,
        bench.journal.audit,
        Surroundings(HOST, actions=[bench.waiting_action()], room_for_bundle=asked.append),
        Listener(bench.published.append, bench.failed.append),
    )
    bench.start()
    for _ in range(2):
        bench.collector.submit(make_action(actions=("waits",)))
    wait_until(lambda: bench.running() == 2)
    assert [wanted >> 20 for wanted in asked] == [64, 128]
    assert {path.stat().st_mode & 0o777 for path in bench.spool.staging.iterdir()} == {0o700}
    assert bench.spool.staging.stat().st_mode & 0o777 == 0o700
