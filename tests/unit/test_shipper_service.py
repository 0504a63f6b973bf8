import logging
import threading

import pytest

from agent.service.stop_signal import StopSignal
from agent.storage.durable_file import publish_bytes
from agent.storage.spool import DONE, SHIPPED
from shipper.configuration.schema import (
    DirectoryDestination,
    LimitsConfig,
    MetricsConfig,
    RetryConfig,
    ShipperConfig,
)
from shipper.destinations.directory_destination import DirectoryBucket
from shipper.faults import DestinationFault, HostFault, NetworkFault
from shipper.service import service
from shipper.service.reporter import FAULTS_KEPT, Reporter
from shipper.service.service import Service
from shipper.service.signs_of_life import SignsOfLife
from shipper.shipping.outcome import Outcome
from shipper.shipping.shipper import Shipper
from shipper.spools.spool_lock import SpoolLock
from shipper.spools.spool_watch import Wake
from shipper.spools.state_directory import RETRY_FILE, STATE_FILE
from shipper.status.shipper_state import PAUSED, StateFile
from tests.shipper_support import (
    NOON,
    FaultyDestination,
    add_bundle,
    new_spool,
    put_in_spool,
    read_whole,
    serve,
    wait_for,
)

DENIED = DestinationFault("denied", "allow it")


@pytest.fixture
def spool(tmp_path):
    return new_spool(tmp_path / "spool")


@pytest.fixture
def serve_rounds(spool, tmp_path):
    """A function that serves until a destination with these faults saw so many deliveries."""

    def run(deliveries, *faults):
        stop = StopSignal()

        class Stops(FaultyDestination):
            def deliver(self, delivery):
                if len(self.seen) + 1 == deliveries:
                    stop.set()
                return super().deliver(delivery)

        destination = Stops(tmp_path / "bucket", *faults)
        serve(spool, destination, stop)
        return destination

    return run


def test_fault_is_noted_while_it_lasts_and_logged_once(spool, serve_rounds, caplog):
    caplog.set_level(logging.INFO)
    add_bundle(spool)
    serve_rounds(3, DENIED, DENIED, DENIED)
    (note,) = StateFile(spool.batches).read().faults
    assert (note.kind, note.message, note.remedy) == ("destination", "denied", "allow it")
    serve_rounds(2, DENIED)
    assert StateFile(spool.batches).read().faults == []
    assert caplog.text.count("1 pending: denied; remedy: allow it") == 2, "once per service"
    assert caplog.text.count("nothing is in the way any more") == 1


def test_note_names_the_bundle_that_others_passed(spool, serve_rounds):
    refused = add_bundle(spool, time_ms=NOON + 1)
    add_bundle(spool, time_ms=NOON)
    serve_rounds(2, DENIED)
    (note,) = StateFile(spool.batches).read().faults
    assert note.bundle == refused.id
    assert spool.counts().delivered == 1


def test_thousands_of_bad_bundles_fill_neither_log_nor_state(spool, serve_rounds, caplog):
    for number in range(2):
        add_bundle(spool, time_ms=NOON + number)
    put_in_spool(spool, range(10, 10 + 2 * FAULTS_KEPT))
    for bundle in spool.finished()[2:]:
        bundle.archive.write_bytes(b"evidenc3")
    serve_rounds(2 * FAULTS_KEPT + 2, *[None] * 2 * FAULTS_KEPT, DENIED)
    faults = StateFile(spool.batches).read().faults
    assert len(faults) == FAULTS_KEPT
    assert faults[0].message == "denied", "what tells more comes first"
    assert caplog.text.count(" pending: ") == FAULTS_KEPT


def test_note_that_cannot_be_written_stops_nothing(spool, serve_rounds):
    (spool.batches / STATE_FILE).mkdir()
    add_bundle(spool)
    serve_rounds(2, DENIED)
    assert spool.counts().delivered == 1


def test_spool_that_came_back_in_other_hands_ends_the_service(spool, tmp_path, serve_rounds):
    add_bundle(spool)
    others = new_spool(tmp_path / "others")
    add_bundle(others)
    with SpoolLock(others.batches), pytest.raises(HostFault, match="ships"):
        stop = StopSignal()

        class Swaps(FaultyDestination):
            def deliver(self, delivery):
                if self.seen:
                    stop.set()
                else:
                    spool.root.rename(tmp_path / "moved")
                    others.root.rename(spool.root)
                return super().deliver(delivery)

        serve(spool, Swaps(tmp_path / "bucket", DENIED), stop)


def test_nothing_new_ends_a_pause_but_somebody_who_wants_a_retry_does(spool, tmp_path):
    """The pauses are hours long: only the retry explains that the bundles arrive."""
    stop = StopSignal()
    destination = FaultyDestination(tmp_path / "bucket", DENIED, DENIED)
    add_bundle(spool)
    add_bundle(spool)
    hours = RetryConfig(1, 0, 0, initial_pause_sec=1e9, max_pause_sec=1e9)
    thread = threading.Thread(
        target=serve,
        args=(spool, destination, stop),
        kwargs={"retry": hours, "scan_interval_sec": 1e6},
    )
    thread.start()
    try:
        wait_for(lambda: StateFile(spool.batches).read().state == PAUSED, "the pause")
        late = add_bundle(spool)
        assert len(destination.seen) == 2
        publish_bytes(spool.batches / RETRY_FILE, b"")
        wait_for(lambda: spool.counts().delivered == 3, "the delivery of all")
        assert destination.seen[2] == late.id, "the newest first"
    finally:
        stop.set()
        thread.join()


def test_stop_lets_what_is_under_way_arrive_and_begins_nothing(spool, tmp_path):
    bundles = [add_bundle(spool, time_ms=NOON + number) for number in range(10)]
    stop, under_way = StopSignal(), threading.Barrier(4)

    class Slow(FaultyDestination):
        def deliver(self, delivery):
            if delivery.id != bundles[-1].id:  # the first one goes alone
                under_way.wait(timeout=60)
                stop.set()
            return super().deliver(delivery)

    serve(spool, Slow(tmp_path / "bucket"), stop, limits=LimitsConfig(4))
    assert spool.counts().delivered == 5


class Endless(FaultyDestination):
    """Refuses the first bundle once; with every delivery a further bundle is there. It asks for
    a stop when it gets a bundle again, or has enough."""

    ENOUGH = 1000

    def __init__(self, root, spool, stop):
        super().__init__(root, DENIED)
        self._spool, self._stop = spool, stop

    def deliver(self, delivery):
        if delivery.id in self.seen or len(self.seen) >= self.ENOUGH:
            self._stop.set()
        put_in_spool(self._spool, [1 + len(self.seen)])
        publish_bytes(self._spool.batches / f"news{DONE}", b"")
        return super().deliver(delivery)


def test_what_was_passed_over_is_tried_again_though_new_bundles_never_end(
    spool, tmp_path, monkeypatch
):
    monkeypatch.setattr(service, "LOOK_SEC", 0)
    monkeypatch.setattr(service, "ROUND_SEC", 0.1)
    stop = StopSignal()
    refused = add_bundle(spool, time_ms=NOON)
    destination = Endless(tmp_path / "bucket", spool, stop)
    serve(spool, destination, stop, limits=LimitsConfig(2))
    assert destination.seen.count(refused.id) == 2
    assert len(destination.seen) < Endless.ENOUGH


class SimulatedTime:
    """A clock, and a watch and a stop signal whose waits take no time but the clock's."""

    def __init__(self):
        self.time = 0.0
        self.stop = StopSignal()
        self.stop.wait = self._pass
        self.on_wait = lambda: None

    def now(self):
        return self.time

    def _pass(self, timeout_sec):
        self.time += timeout_sec
        return self.stop.is_set()

    def arm(self, places):
        return True

    def take_news(self):
        return False

    def close(self):
        pass

    def wait(self, timeout_sec, *, heed_news=True):
        self._pass(timeout_sec)
        self.on_wait()
        return Wake.STOP if self.stop.is_set() else Wake.TIME


def test_stop_before_anything_is_tried_leaves_the_cause_in_the_state(spool, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    bundle = add_bundle(spool)

    class StopsSecondRound(SimulatedTime):
        rounds = 0

        def arm(self, places):
            self.rounds += 1
            if self.rounds == 3:  # one for the start
                self.stop.set()
            return True

    time = StopsSecondRound()
    settings = ShipperConfig(spool.root, DirectoryDestination(tmp_path), start_jitter_sec=0)
    store = FaultyDestination(tmp_path / "bucket", DENIED, DENIED)
    reporter = Reporter(StateFile(spool.batches))
    shipper = Shipper(settings, store, time.stop, reporter.deliver)
    signs = SignsOfLife(settings, store, time.now)
    Service(shipper, settings, time.stop, reporter, signs, time).run()
    state = StateFile(spool.batches).read()
    assert (state.state, [note.message for note in state.faults]) == (PAUSED, ["denied"])
    assert "nothing is in the way" not in caplog.text
    assert store.seen == [bundle.id], "no heartbeat to a store that is away"


@pytest.fixture
def simulate(spool, tmp_path):
    """A function: the service in simulated time, with a store and settings; ends by a stop."""

    def run(time, store, **changes):
        quiet = {"start_jitter_sec": 0, "heartbeat_interval_sec": 0, "limits": LimitsConfig(1)}
        settings = ShipperConfig(spool.root, DirectoryDestination(tmp_path), **quiet | changes)
        reporter = Reporter(StateFile(spool.batches), time.now)
        shipper = Shipper(settings, store, time.stop, reporter.deliver)
        signs = SignsOfLife(settings, store, time.now)
        Service(shipper, settings, time.stop, reporter, signs, time).run()

    return run


def test_first_look_comes_within_the_jitter(spool, tmp_path, simulate):
    time, began = SimulatedTime(), []
    add_bundle(spool)

    class Notes(FaultyDestination):
        def deliver(self, delivery):
            began.append(time.now())
            time.stop.set()
            return super().deliver(delivery)

    simulate(time, Notes(tmp_path / "bucket"), start_jitter_sec=1000)
    assert 0 < began[0] <= 1000


def test_pauses_begin_anew_once_anything_was_shipped(spool, tmp_path, simulate):
    """Twenty pauses double up to days; the one after a delivery is a second at most, although
    the store still refuses another bundle."""
    time, attempts = SimulatedTime(), []
    refused, good = (add_bundle(spool, time_ms=NOON + number) for number in (0, 1))

    class Away(FaultyDestination):
        def deliver(self, delivery):
            attempts.append((delivery.id, time.now()))
            if delivery.id == refused.id or len(attempts) <= 40:
                if len(attempts) > 43:
                    time.stop.set()
                raise DENIED
            return super().deliver(delivery)

    patience = RetryConfig(1, 0, 0, initial_pause_sec=1, max_pause_sec=86_400)
    simulate(time, Away(tmp_path / "bucket"), retry=patience, scan_interval_sec=86_400)
    at = next(place for place, (one, _) in enumerate(attempts) if place >= 40 and one == good.id)
    after = [moment for one, moment in attempts[at:] if one == refused.id]
    assert attempts[at][1] > 1000, "it was away for long"
    assert after[0] - attempts[at][1] <= 1
    assert after[1] - after[0] <= 1


def test_looks_within_a_round_have_a_second_between_them(spool, tmp_path, simulate):
    looks = []

    class Counts(SimulatedTime):
        def take_news(self):
            looks.append(self.now())
            return True

    time = Counts()
    for number in range(10):
        add_bundle(spool, time_ms=NOON + number)

    class TakesHalfASecond(FaultyDestination):
        def deliver(self, delivery):
            time.time += 0.5
            if len(self.seen) == 9:
                time.stop.set()
            return super().deliver(delivery)

    simulate(time, TakesHalfASecond(tmp_path / "bucket"))
    assert spool.counts().delivered == 10
    assert looks == [1.0, 2.0, 3.0, 4.0, 5.0]


def test_state_is_written_six_times_a_minute_while_much_is_shipped(spool):
    time = SimulatedTime()
    reporter = Reporter(StateFile(spool.batches), time.now)
    written = []
    for second in range(25):
        time.time = float(second)
        reporter.deliver(Outcome("x", 1, key="y"))
        reporter.tick()
        written.append(StateFile(spool.batches).read().shipped_bytes)
    assert written == [1] * 10 + [11] * 10 + [21] * 5


def test_spool_that_the_agent_makes_later_is_seen_at_once(spool, tmp_path):
    """The clock would look again in days only."""
    spool.batches.rmdir()
    stop = StopSignal()
    thread = threading.Thread(
        target=serve,
        args=(spool, DirectoryBucket(tmp_path / "bucket"), stop),
        kwargs={"scan_interval_sec": 1e6, "metrics": MetricsConfig(tmp_path / "figures.prom")},
    )
    thread.start()
    try:
        wait_for((tmp_path / "figures.prom").exists, "the end of the first look")
        bundle = add_bundle(new_spool(spool.root))
        wait_for(lambda: spool.path(bundle.id, SHIPPED).exists(), "the delivery")
    finally:
        stop.set()
        thread.join()


WEEK_SEC = 7 * 86_400


def test_outage_of_a_week_loses_nothing_and_the_newest_arrive_first(spool, tmp_path):
    time, backlog = SimulatedTime(), 10_000
    put_in_spool(spool, range(50))

    class AwayForAWeek(DirectoryBucket):
        attempts, arrived = 0, ()

        def deliver(self, delivery):
            if time.now() < WEEK_SEC:
                self.attempts += 1
                raise NetworkFault("no route to host")
            read_whole(delivery)
            self.arrived += (delivery.id,)
            return self.description

    def grow():
        if time.now() > WEEK_SEC - 6000 and spool.counts().made == 50:
            put_in_spool(spool, range(50, backlog))
        if store.arrived:
            time.stop.set()

    store, time.on_wait = AwayForAWeek(tmp_path / "bucket"), grow
    settings = ShipperConfig(
        spool.root,
        DirectoryDestination(tmp_path),
        scan_interval_sec=3600,
        start_jitter_sec=0,
        heartbeat_interval_sec=0,
        retry=RetryConfig(max_pause_sec=3000),
    )
    reporter = Reporter(StateFile(spool.batches))
    shipper = Shipper(settings, store, time.stop, reporter.deliver)
    signs = SignsOfLife(settings, store, time.now)
    Service(shipper, settings, time.stop, reporter, signs, time).run()
    assert sorted(store.arrived) == sorted(set(store.arrived)), "each of them once"
    counts = spool.counts()
    assert (counts.made, counts.delivered, counts.pending) == (backlog, backlog, 0)
    in_order = sorted(store.arrived, reverse=True)
    furthest = max(abs(in_order.index(one) - at) for at, one in enumerate(store.arrived[:200]))
    assert furthest <= 8, "the newest first, but for those under way side by side"
    assert store.attempts < WEEK_SEC / 300, "a store that is away is left alone"
    assert store.attempts > WEEK_SEC / 3000, "and never given up"


def test_first_look_comes_after_a_part_of_the_jitter_and_news_do_not_hasten_it(spool, tmp_path):
    add_bundle(spool)
    first_looks = []
    for _ in range(20):
        time = SimulatedTime()

        class Notes(DirectoryBucket):
            def put_document(self, document, time=time):
                first_looks.append(time.now())
                time.stop.set()

        store = Notes(tmp_path / "bucket")
        settings = ShipperConfig(spool.root, DirectoryDestination(tmp_path), start_jitter_sec=3600)
        reporter = Reporter(StateFile(spool.batches))
        shipper = Shipper(settings, store, time.stop, reporter.deliver)
        signs = SignsOfLife(settings, store, time.now)
        Service(shipper, settings, time.stop, reporter, signs, time).run()
    assert all(0 <= look <= 3600 for look in first_looks)
    assert max(first_looks) - min(first_looks) > 360, "spread over the whole"
