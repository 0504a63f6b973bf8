"""A fleet with one key each pushes through one central host at once."""

import hashlib
import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from agent.service.stop_signal import StopSignal
from agent.storage.spool import ARCHIVE, DONE, Spool
from shipper.configuration.schema import DirectoryDestination, ShipperConfig
from shipper.destinations.delivery import Delivery
from shipper.destinations.document import Document
from shipper.destinations.relay_destination import RelayInbox
from shipper.faults import NetworkFault
from shipper.relay.hosts import read_hosts
from shipper.shipping.shipper import Shipper
from tests.relay_server import RelayServer
from tests.s3_support import Stores
from tests.shipper_support import add_bundle, delivery_of, new_spool, put_in_spool

HOSTS = 200
AT_ONCE = 16  # as much as two cores bear
ATTEMPTS = 5

pytestmark = pytest.mark.timeout(1200)


@dataclass(frozen=True)
class Fleet:
    """What each host has handed in, by its name."""

    relay: RelayServer
    delivered: dict[str, Delivery]


@pytest.fixture(scope="module")
def fleet(relay, tmp_path_factory):
    """The fleet after every host has pushed its bundle and its heartbeat."""
    directory = tmp_path_factory.mktemp("fleet")
    names = [f"fleet-{number:03}" for number in range(HOSTS)]
    keys = {name: relay.authorize(name) for name in names}

    def push(name):
        content = name.encode() * 100 + os.urandom(50_000)
        delivery = delivery_of(add_bundle(new_spool(directory / name), content, host=name))
        client = RelayInbox(relay.config(keys[name]), StopSignal())
        heartbeat = Document("heartbeat", name, "k", json.dumps({"host": name}).encode())
        patiently(lambda: client.deliver(delivery))
        patiently(lambda: client.put_document(heartbeat))
        return delivery

    with ThreadPoolExecutor(AT_ONCE) as pool:
        delivered = dict(zip(names, pool.map(push, names), strict=True))
    return Fleet(relay, delivered)


def patiently(attempt):
    """As the shipper does it: the network's faults pass."""
    for _ in range(ATTEMPTS - 1):
        try:
            return attempt()
        except NetworkFault:
            continue
    return attempt()


def test_every_bundle_arrives_once_and_in_its_own_folder(fleet):
    for name, delivery in fleet.delivered.items():
        spool = Spool(fleet.relay.inbox / name)
        names = sorted(path.name for path in spool.batches.iterdir())
        assert names == sorted([f"{delivery.id}{DONE}", f"{delivery.id}{ARCHIVE}"])
        archive = spool.path(delivery.id, ARCHIVE).read_bytes()
        assert hashlib.sha256(archive).hexdigest() == delivery.sha256
        assert spool.path(delivery.id, DONE).read_bytes() == delivery.manifest
        heartbeat = json.loads((spool.root / "heartbeat.json").read_bytes())
        assert heartbeat == {"host": name}
        assert list((spool.root / "incoming").iterdir()) == []


def test_the_operator_sees_every_host(fleet):
    hosts = {one.host: one for one in read_hosts(fleet.relay.inbox)}
    for name, delivery in fleet.delivered.items():
        assert (hosts[name].waiting, hosts[name].bytes) == (1, delivery.size)
        assert hosts[name].last_accepted
        assert hosts[name].last_heartbeat


FLOOD = "a-flood"
FLOOD_SIZE = 600


@pytest.mark.minio
def test_one_shipper_carries_all_into_the_bucket_and_none_starves(fleet, minio, tmp_path):
    inbox = tmp_path / "inbox"
    for name in fleet.delivered:  # hosts of other tests are there too
        shutil.copytree(fleet.relay.inbox / name, inbox / name)
    put_in_spool(new_spool(inbox / FLOOD), range(FLOOD_SIZE), host=FLOOD)
    bucket = minio.create_bucket()
    arrived = []
    summary = Shipper(
        ShipperConfig(tmp_path / "none", DirectoryDestination(tmp_path), inbox=inbox),
        Stores(minio, bucket, tmp_path).open(),
        StopSignal(),
        arrived.append,
    ).ship_pending()
    assert (summary.complete, summary.left) == (True, 0)
    keys = set(minio.keys(bucket))
    assert len(keys) == 2 * (HOSTS + FLOOD_SIZE)
    for name, delivery in fleet.delivered.items():
        assert {delivery.keys.archive, delivery.keys.manifest} <= keys, "the keys of the direct way"
        head = minio.client.head_object(Bucket=bucket, Key=delivery.keys.archive)
        assert head["Metadata"]["sha256"] == delivery.sha256
        assert minio.read(bucket, delivery.keys.manifest) == delivery.manifest
        assert not Spool(inbox / name).finished(), "what is in the bucket has left the inbox"
    hosts = [outcome.host for outcome in arrived]
    last = max(at for at, host in enumerate(hosts) if host != FLOOD)
    assert hosts[:last].count(FLOOD) < FLOOD_SIZE - 150, "the flood waits for itself"
