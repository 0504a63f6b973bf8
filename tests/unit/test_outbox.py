"""One source, and the look for new bundles in the middle of its deliveries."""

import sys

import pytest

from shipper.shipping.outbox import Outbox
from shipper.spools.sources import Source
from tests.shipper_support import FaultyDestination, add_bundle, new_spool


@pytest.fixture
def spool(tmp_path):
    return new_spool(tmp_path / "spool")


class Look:
    """Has the outbox look for what waits before each of its steps, as its main thread may."""

    def __init__(self, outbox):
        self._outbox = outbox
        self._looks = False

    def __call__(self, frame, event, _):
        if event == "call" and "shipper/shipping" in frame.f_code.co_filename and not self._looks:
            self._looks = True
            self._outbox.waiting()
            self._looks = False


def ship_under_looks(outbox):
    (cargo,) = outbox.waiting()
    sys.setprofile(Look(outbox))
    try:
        return outbox.ship(cargo, once=True)
    finally:
        sys.setprofile(None)


def outbox_of(spool, destination):
    return Outbox(Source(spool), destination, destination, "")


def test_bundle_that_is_evicted_while_it_arrives_is_delivered(spool, tmp_path):
    bundle = add_bundle(spool)

    class Evicting(FaultyDestination):
        def deliver(self, delivery):
            where = super().deliver(delivery)
            spool.remove(bundle, {"id": bundle.id})
            return where

    outcome = ship_under_looks(outbox_of(spool, Evicting(tmp_path / "bucket")))
    assert (outcome.fault, bool(outcome.key)) == (None, True)
    counts = spool.counts()
    assert (counts.made, counts.delivered, counts.evicted) == (1, 1, 0)


def test_tombstone_whose_spool_vanishes_while_it_arrives_is_the_hosts_fault(spool, tmp_path):
    bundle = add_bundle(spool)
    spool.remove(bundle, {"id": bundle.id})

    class Vanishing(FaultyDestination):
        def put_document(self, document):
            super().put_document(document)
            spool.batches.rename(spool.root / "moved")

    outcome = ship_under_looks(outbox_of(spool, Vanishing(tmp_path / "bucket")))
    assert outcome.fault.kind == "host"
    assert outcome.key
