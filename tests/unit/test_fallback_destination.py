"""The way around a relay that is away."""

import pytest

from shipper.destinations.directory_destination import DirectoryBucket
from shipper.destinations.document import Document
from shipper.destinations.fallback_destination import FallbackDestination
from shipper.faults import BundleFault, DestinationFault, HostFault, NetworkFault
from tests.shipper_support import FaultyDestination, add_bundle, delivery_of, new_spool

AWAY = NetworkFault("no route")


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def delivery(tmp_path):
    return delivery_of(add_bundle(new_spool(tmp_path / "spool")))


@pytest.fixture
def ways(tmp_path, clock):
    """A function: the relay with these faults, the other way, and both as one."""

    def make(*faults):
        relay = FaultyDestination(tmp_path / "relay", *faults)
        direct = DirectoryBucket(tmp_path / "direct")
        return relay, direct, FallbackDestination(relay, direct, 100, 10, clock)

    return make


def test_relay_is_used_while_it_works(ways, delivery):
    relay, _, both = ways()
    assert both.deliver(delivery) == relay.description
    assert relay.seen == [delivery.id]


@pytest.mark.parametrize("fault", [AWAY, DestinationFault("key refused"), HostFault("no rsync")])
def test_bundles_wait_at_first_and_go_around_later(ways, delivery, clock, fault):
    relay, direct, both = ways(*[fault] * 3)
    for now in (1000, 1099):
        clock.now = now
        with pytest.raises(type(fault)):
            both.deliver(delivery)
    clock.now = 1100
    assert both.deliver(delivery) == direct.description
    assert len(relay.seen) == 3


def test_relay_is_asked_now_and_then_and_taken_back(ways, delivery, clock):
    relay, direct, both = ways(*[AWAY] * 3)
    with pytest.raises(NetworkFault):
        both.deliver(delivery)
    clock.now = 1100
    assert [both.deliver(delivery) for _ in range(3)] == [direct.description] * 3
    assert len(relay.seen) == 2, "not before every bundle"
    clock.now = 1110
    assert both.deliver(delivery) == direct.description
    clock.now = 1120
    assert [both.deliver(delivery) for _ in range(2)] == [relay.description] * 2


def test_one_bundle_asks_the_relay_while_the_others_go_around(tmp_path, delivery, clock):
    class SlowRelay(FaultyDestination):
        def deliver(self, delivery):
            if len(self.seen) == 1:  # meanwhile, another thread
                clock.now += 5
                assert both.deliver(delivery) == direct.description
            return super().deliver(delivery)

    relay, direct = SlowRelay(tmp_path / "relay", AWAY, AWAY), DirectoryBucket(tmp_path / "direct")
    both = FallbackDestination(relay, direct, 100, 10, clock)
    with pytest.raises(NetworkFault):
        both.deliver(delivery)
    clock.now = 1100
    assert both.deliver(delivery) == direct.description
    assert len(relay.seen) == 2


def test_success_in_between_starts_the_wait_anew(ways, delivery, clock):
    _, _, both = ways(AWAY, None, AWAY)
    with pytest.raises(NetworkFault):
        both.deliver(delivery)
    clock.now = 1090
    both.deliver(delivery)
    clock.now = 1150
    with pytest.raises(NetworkFault):
        both.deliver(delivery)


def test_bad_bundle_is_bad_on_every_way(ways, delivery, clock):
    relay, _, both = ways(AWAY, BundleFault("wrong sha256"))
    with pytest.raises(NetworkFault):
        both.deliver(delivery)
    clock.now = 2000
    with pytest.raises(BundleFault):
        both.deliver(delivery)
    assert len(relay.seen) == 2


def test_documents_go_around_too(ways, clock, tmp_path):
    _, _, both = ways(AWAY, AWAY)
    document = Document("heartbeat", "web-17", "web-17/heartbeat.json", b"{}")
    with pytest.raises(NetworkFault):
        both.put_document(document)
    clock.now = 2000
    both.put_document(document)
    assert (tmp_path / "direct" / document.key).read_bytes() == b"{}"
