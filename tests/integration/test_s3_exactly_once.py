"""One object for one bundle, whatever was lost on the way: against a real MinIO."""

from __future__ import annotations

import base64
import json
import os
import threading

import pytest

from shipper.destinations.document import Document
from shipper.faults import BundleFault, DestinationFault, NetworkFault
from tests.minio_server import MinioServer
from tests.s3_support import (
    WRITE_ONLY,
    Stores,
    forget_credentials_of_this_machine,
    restricted_key,
)
from tests.shipper_support import PROBE_KEY, add_bundle, delivery_of, new_spool
from tests.store_gate import Fate, StoreGate, error_body

pytestmark = pytest.mark.minio


@pytest.fixture(autouse=True)
def no_credentials_of_this_machine(monkeypatch):
    forget_credentials_of_this_machine(monkeypatch)


@pytest.fixture
def bucket(minio):
    """It keeps every version, so that nothing which was overwritten can hide."""
    name = minio.create_bucket()
    minio.client.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    return name


@pytest.fixture
def stores(minio, bucket, tmp_path):
    return Stores(minio, bucket, tmp_path)


@pytest.fixture
def spool(tmp_path):
    return new_spool(tmp_path / "spool")


@pytest.fixture
def delivery(spool):
    return delivery_of(add_bundle(spool, os.urandom(10_000)))


def versions(stores: Stores) -> list[str]:
    """The key of every version in the bucket, but for heartbeats."""
    answer = stores.minio.client.list_object_versions(Bucket=stores.bucket)
    keys = sorted(version["Key"] for version in answer.get("Versions", []))
    return [key for key in keys if key != PROBE_KEY]


PAGE = (200, b"<html>please log in</html>", {"Content-Type": "text/html", "ETag": '"1"'})


def test_web_page_is_no_answer_even_with_an_etag(stores, minio, delivery):
    with (
        StoreGate(minio.port, lambda _: PAGE) as gate,
        pytest.raises(DestinationFault, match="a web page"),
    ):
        stores.open(endpoint_url=gate.endpoint_url).deliver(delivery)
    assert versions(stores) == []


def both(delivery) -> list[str]:
    return sorted([delivery.keys.archive, delivery.keys.manifest])


def content(stores: Stores, key: str) -> bytes:
    return stores.minio.read(stores.bucket, key)


def test_conditions_are_tried_out_anew_after_a_refusal(stores, minio, delivery):
    with StoreGate(minio.port) as gate:
        store = stores.open(endpoint_url=gate.endpoint_url)
        store.deliver(delivery)
        known = len(gate.probes)
        gate.decide = lambda _: (403, error_body("AccessDenied"))
        with pytest.raises(DestinationFault):
            store.deliver(delivery)
        gate.decide = lambda _: Fate.PASS
        store.deliver(delivery)
    assert len(gate.probes) > known


def test_archive_that_changes_before_it_is_sent_a_second_time_is_not_stored(stores, minio, spool):
    bundle = add_bundle(spool, os.urandom(10_000))
    delivery = delivery_of(bundle)

    def change_and_refuse_conditions(request):
        if not request.conditional:
            return Fate.PASS
        bundle.archive.write_bytes(os.urandom(10_000))
        return 501, error_body("NotImplemented")

    with StoreGate(minio.port, change_and_refuse_conditions) as gate:
        store = stores.open(endpoint_url=gate.endpoint_url)
        with pytest.raises(BundleFault, match="sha256"):
            store.deliver(delivery)
    assert stores.minio.keys(stores.bucket) == []


@pytest.mark.parametrize("heartbeat", [False, True])
def test_conditions_are_used_where_they_work(stores, minio, bucket, delivery, heartbeat):
    if heartbeat:
        minio.client.put_object(Bucket=bucket, Key=PROBE_KEY, Body=b"{}")
    with StoreGate(minio.port) as gate:
        store = stores.open(endpoint_url=gate.endpoint_url)
        for _ in range(2):
            store.deliver(delivery)
    assert len(gate.probes) == (1 if heartbeat else 2), "tried once, not for every object"
    puts = [request for request in gate.requests if request.method == "PUT"]
    assert [request.conditional for request in puts] == [True] * 4
    if heartbeat:
        assert content(stores, PROBE_KEY) == b"{}", "the trial writes nothing"
    else:
        assert "probe" in json.loads(content(stores, PROBE_KEY))
    assert versions(stores) == both(delivery)


def test_store_that_ignores_conditions_is_noticed_and_told_of_once(stores, minio, delivery, caplog):
    caplog.set_level("INFO")

    def clear_the_way(request):
        """What lies there is in nobody's way: so it looks to the client."""
        if request.conditional:
            key = request.path.removeprefix(f"/{stores.bucket}/")
            minio.client.delete_object(Bucket=stores.bucket, Key=key)
        return Fate.PASS

    with StoreGate(minio.port, clear_the_way, clear_the_way) as gate:
        store = stores.open(endpoint_url=gate.endpoint_url)
        for _ in range(2):
            store.deliver(delivery)
    assert [request.conditional for request in gate.requests] == [False] * 4
    assert caplog.text.count("ignores the condition") == 1
    assert set(versions(stores)) == set(both(delivery))


@pytest.mark.parametrize("status", [400, 501])
def test_store_that_refuses_conditions_is_asked_without(stores, minio, delivery, status):
    def refuse(request):
        return (status, error_body("NotImplemented")) if request.conditional else Fate.PASS

    with StoreGate(minio.port, refuse) as gate:
        store = stores.open(endpoint_url=gate.endpoint_url)
        for _ in range(2):
            store.deliver(delivery)
    assert [request.conditional for request in gate.requests] == [True] + [False] * 4
    assert content(stores, delivery.keys.archive) == delivery.archive.read_bytes()


def test_trial_that_is_denied_is_no_reason_to_stop(stores, minio, bucket, delivery, caplog):
    caplog.set_level("INFO")
    key = restricted_key(minio, bucket, WRITE_ONLY, "filer-1/20*")
    store = stores.open(key)
    for _ in range(2):
        store.deliver(delivery)
    assert caplog.text.count("AccessDenied") == 1
    assert set(versions(stores)) == set(both(delivery))


def test_threads_try_it_out_once(stores, minio, spool):
    deliveries = [delivery_of(add_bundle(spool, os.urandom(1000))) for _ in range(8)]
    with StoreGate(minio.port) as gate:
        store = stores.open(endpoint_url=gate.endpoint_url)
        threads = [threading.Thread(target=store.deliver, args=(one,)) for one in deliveries]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(gate.probes) == 2
    assert versions(stores) == sorted(key for one in deliveries for key in both(one))


def test_lost_acknowledgement_doubles_nothing(stores, minio, delivery):
    fates = [Fate.LOSE_REPLY, Fate.PASS, Fate.PASS, Fate.LOSE_REPLY]
    with StoreGate(minio.port, lambda _: fates.pop(0) if fates else Fate.PASS) as gate:
        store = stores.open(endpoint_url=gate.endpoint_url)
        for _ in range(2):
            with pytest.raises(NetworkFault):
                store.deliver(delivery)
        store.deliver(delivery)
    assert not fates
    assert versions(stores) == both(delivery)


def test_other_bytes_under_the_key_are_healed(stores, minio, bucket, delivery):
    right = delivery.archive.read_bytes()
    wrong = bytes([right[0] ^ 1]) + right[1:]
    for key in both(delivery):
        claims = {"sha256": delivery.sha256}  # anyone can claim that
        minio.client.put_object(Bucket=bucket, Key=key, Body=wrong, Metadata=claims)
    stores.open().deliver(delivery)
    assert content(stores, delivery.keys.archive) == right
    assert content(stores, delivery.keys.manifest) == delivery.manifest


def test_key_that_may_not_look_writes_the_same_again(stores, minio, bucket, delivery):
    store = stores.open(restricted_key(minio, bucket, WRITE_ONLY))
    for _ in range(2):
        store.deliver(delivery)
    assert len(versions(stores)) == 4, "with versions, the older ones stay: equal to the byte"
    assert content(stores, delivery.keys.archive) == delivery.archive.read_bytes()
    assert content(stores, delivery.keys.manifest) == delivery.manifest


def test_look_that_fails_for_now_is_a_network_fault(stores, minio, delivery):
    stores.open().deliver(delivery)

    def break_the_look(request):
        return (503, b"") if request.method == "HEAD" else Fate.PASS

    with (
        StoreGate(minio.port, break_the_look) as gate,
        pytest.raises(NetworkFault),
    ):
        stores.open(endpoint_url=gate.endpoint_url).deliver(delivery)
    assert versions(stores) == both(delivery)


def test_two_writers_at_once_are_told_to_come_again(stores, minio, delivery):
    conflict = (409, error_body("ConditionalRequestConflict"))
    with (
        StoreGate(minio.port, lambda _: conflict) as gate,
        pytest.raises(NetworkFault),
    ):
        stores.open(endpoint_url=gate.endpoint_url).deliver(delivery)


def test_tombstone_is_written_once_and_heartbeats_replace_each_other(stores):
    store = stores.open()
    tombstone = Document("tombstone", "x", "filer-1/2026/01/01/x.evicted.json", b'{"id": "x"}\n')
    for beat in range(3):
        store.put_document(tombstone)
        store.put_document(Document("heartbeat", "filer-1", PROBE_KEY, b"%d" % beat))
    assert versions(stores) == [tombstone.key]
    assert content(stores, tombstone.key) == tombstone.content
    assert content(stores, PROBE_KEY) == b"2"


@pytest.fixture(scope="module")
def encrypting_minio(minio, tmp_path_factory):
    key = "aod-key:" + base64.b64encode(os.urandom(32)).decode()
    directory = tmp_path_factory.mktemp("encrypting")
    with MinioServer(minio.binary, directory, MINIO_KMS_SECRET_KEY=key) as server:
        yield server


@pytest.mark.parametrize(
    "settings",
    [
        {"encryption": "AES256"},
        {"encryption": "aws:kms"},
        {"encryption": "aws:kms", "kms_key_id": "aod-key"},
    ],
    ids=str,
)
@pytest.mark.parametrize("size", [1000, 20 << 20])
def test_encryption_and_tags_reach_the_store(encrypting_minio, spool, tmp_path, settings, size):
    stores = Stores(encrypting_minio, encrypting_minio.create_bucket(), tmp_path)
    delivery = delivery_of(add_bundle(spool, os.urandom(size)))
    tags = (("team", "storage"), ("note", "a/b = c+d"))
    for _ in range(2):  # where an ETag proves nothing, the same is written again
        stores.open(**settings, tags=tags).deliver(delivery)
    for key in both(delivery):
        place = {"Bucket": stores.bucket, "Key": key}
        head = encrypting_minio.client.head_object(**place)
        assert head["ServerSideEncryption"] == settings["encryption"]
        assert settings.get("kms_key_id", "") in head.get("SSEKMSKeyId", "")
        found = encrypting_minio.client.get_object_tagging(**place)["TagSet"]
        assert {tag["Key"]: tag["Value"] for tag in found} == dict(tags)
    assert content(stores, delivery.keys.archive) == delivery.archive.read_bytes()
