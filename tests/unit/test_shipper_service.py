import logging

import pytest

from agent.service.stop_signal import StopSignal
from shipper.faults import DestinationFault, HostFault
from shipper.shipper_state import STATE_FILE, StateFile
from shipper.spool_lock import SpoolLock
from tests.shipper_support import NOON, FaultyDestination, add_bundle, new_spool, serve

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
    (note,) = StateFile(spool.batches).read()
    assert (note.kind, note.message, note.remedy) == ("destination", "denied", "allow it")
    serve_rounds(2, DENIED)
    assert StateFile(spool.batches).read() == []
    assert caplog.text.count("1 pending: denied; remedy: allow it") == 2, "once per service"
    assert caplog.text.count("nothing is in the way any more") == 1


def test_note_names_the_bundle_that_others_passed(spool, serve_rounds):
    refused = add_bundle(spool, time_ms=NOON + 1)
    add_bundle(spool, time_ms=NOON)
    serve_rounds(2, DENIED)
    (note,) = StateFile(spool.batches).read()
    assert note.bundle == refused.id
    assert spool.counts().delivered == 1


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
