"""Whom a fault concerns: one bundle, or all."""

import pytest

from shipper.faults import NetworkFault
from shipper.shipping.fair_queue import Cargo
from shipper.shipping.outcome import Outcome
from shipper.shipping.shipping_round import ShippingRound


@pytest.fixture
def cargos():
    return [Cargo(one, None) for one in "abc"]


def shipped(cargo):
    return Outcome(cargo.id, 1, key=cargo.id)


def failed(cargo):
    return Outcome(cargo.id, 1, fault=NetworkFault("lost"))


def begin_all(this_round, cargos):
    for cargo in this_round.not_begun(cargos):
        this_round.begin(cargo)


def test_late_success_does_not_end_a_pause_that_is_decided(cargos):
    this_round = ShippingRound()
    begin_all(this_round, cargos)
    for cargo, became in zip(cargos, (failed, failed, shipped), strict=True):
        this_round.add(cargo, became(cargo))
    summary = this_round.summary()
    assert (summary.blocked, summary.left) == (True, 2)
    assert summary.fault.message == "lost"
    assert not this_round.may_begin(0, 4)


def test_bundle_that_is_gone_at_the_next_look_is_not_left(cargos):
    this_round = ShippingRound()
    this_round.not_begun(cargos)
    this_round.not_begun(cargos[:1])
    assert this_round.summary().left == 1
