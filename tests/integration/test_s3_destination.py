"""The S3 destination against a real MinIO."""

import hashlib
import json
import os

import pytest

from agent.service.stop_signal import StopSignal
from agent.storage.tombstone import make_tombstone
from shipper.configuration.schema import S3Destination
from shipper.destinations.pace import Pace
from shipper.faults import BundleFault, DestinationFault, NetworkFault
from shipper.s3.bucket import S3Bucket
from shipper.s3.multipart import PART_SIZE
from tests.minio_server import MinioServer
from tests.s3_support import (
    WRITE_ONLY,
    credentials_file,
    forget_credentials_of_this_machine,
    restricted_key,
)
from tests.shipper_support import (
    NOON,
    PROBE_KEY,
    add_bundle,
    delivery_of,
    make_shipper,
    new_spool,
)

pytestmark = pytest.mark.minio


@pytest.fixture
def spool(tmp_path):
    return new_spool(tmp_path / "spool")


@pytest.fixture
def bucket(minio):
    return minio.create_bucket()


@pytest.fixture(autouse=True)
def no_credentials_of_this_machine(monkeypatch):
    forget_credentials_of_this_machine(monkeypatch)


@pytest.fixture
def store(minio, bucket, tmp_path):
    """A function that makes the destination, with other settings on demand."""

    def make(pace=None, **changes):
        key_file = credentials_file(tmp_path / "key", minio.access_key, minio.secret_key)
        settings = {
            "bucket": bucket,
            "endpoint_url": minio.endpoint_url,
            "credentials_file": key_file,
        }
        return S3Bucket(S3Destination(**{**settings, **changes}), PROBE_KEY, pace)

    return make


def test_bundle_and_manifest_lie_under_their_keys(minio, bucket, store, spool):
    bundle = add_bundle(spool, os.urandom(100_000))
    delivery = delivery_of(bundle, "fleet")
    store().deliver(delivery)
    archive, manifest = delivery.keys.archive, delivery.keys.manifest
    assert minio.keys(bucket) == sorted([archive, manifest])
    assert minio.read(bucket, archive) == bundle.archive.read_bytes()
    assert minio.read(bucket, manifest) == bundle.done.read_bytes()
    head = minio.client.head_object(Bucket=bucket, Key=archive)
    assert head["Metadata"] == {"sha256": delivery.sha256}
    assert head["ContentType"] == "application/zstd"
    assert minio.client.head_object(Bucket=bucket, Key=manifest)["ContentType"] == (
        "application/json"
    )


@pytest.mark.parametrize("size", [0, 1, PART_SIZE, PART_SIZE + 1, 2 * PART_SIZE, 2 * PART_SIZE + 7])
def test_every_size_arrives_whole(minio, bucket, store, spool, size):
    delivery = delivery_of(add_bundle(spool, os.urandom(size)))
    store().deliver(delivery)
    content = minio.read(bucket, delivery.keys.archive)
    assert (len(content), hashlib.sha256(content).hexdigest()) == (size, delivery.sha256)
    head = minio.client.head_object(Bucket=bucket, Key=delivery.keys.archive)
    assert head["Metadata"] == {"sha256": delivery.sha256}
    assert ("-" in head["ETag"]) == (size > PART_SIZE), "in parts only above the part size"


@pytest.mark.parametrize("size", [1000, 3 * PART_SIZE])
def test_wrong_archive_never_becomes_an_object(minio, bucket, store, spool, size):
    content = bytearray(os.urandom(size))
    bundle = add_bundle(spool, bytes(content))
    content[-1] ^= 1
    bundle.archive.write_bytes(content)
    with pytest.raises(BundleFault, match="sha256"):
        store().deliver(delivery_of(bundle))
    assert minio.keys(bucket) == []
    uploads = minio.client.list_multipart_uploads(Bucket=bucket)
    assert "Uploads" not in uploads, "an upload in parts must be aborted"


def test_corrupt_bundle_stays_and_the_others_go(minio, bucket, store, spool):
    bad = add_bundle(spool, time_ms=NOON)
    bad.archive.write_bytes(b"evidenc3")
    good = add_bundle(spool, time_ms=NOON + 1)
    summary = make_shipper(spool, store()).ship_pending()
    assert [outcome.bundle_id for outcome in summary.shipped] == [good.id]
    assert [outcome.bundle_id for outcome in summary.passed_over] == [bad.id]
    assert len(minio.keys(bucket)) == 2


def test_second_delivery_changes_no_byte_and_adds_no_object(minio, bucket, store, spool):
    delivery = delivery_of(add_bundle(spool))
    for _ in range(2):
        store().deliver(delivery)
    assert len(minio.keys(bucket)) == 2
    assert minio.read(bucket, delivery.keys.archive) == b"evidence"


@pytest.mark.parametrize("addressing_style", ["auto", "path"])
@pytest.mark.parametrize("region", [None, "us-east-1"])
def test_settings_reach_the_store(minio, bucket, store, spool, addressing_style, region):
    store(addressing_style=addressing_style, region=region).deliver(delivery_of(add_bundle(spool)))
    assert len(minio.keys(bucket)) == 2


@pytest.mark.parametrize(
    ("changes", "code", "remedy"),
    [
        ({"bucket": "no-such-bucket"}, "NoSuchBucket", "create the bucket"),
        ({"key": ("unknown-key", "some-secret")}, "InvalidAccessKeyId", "credentials file"),
        ({"key": (None, "some-other-secret")}, "SignatureDoesNotMatch", "credentials file"),
        ({"key": (None, None, "no-token")}, "InvalidToken", "temporary credentials"),
    ],
)
def test_refusal_names_its_remedy_and_all_stays_pending(
    minio, bucket, store, spool, tmp_path, changes, code, remedy
):
    if "key" in changes:
        key, secret, *token = changes["key"]
        path = credentials_file(
            tmp_path / "wrong", key or minio.access_key, secret or minio.secret_key, *token
        )
        changes = {"credentials_file": path}
    for _ in range(2):
        add_bundle(spool)
    summary = make_shipper(spool, store(**changes)).ship_pending()
    assert isinstance(summary.fault, DestinationFault)
    assert code in summary.fault.message
    assert remedy in summary.fault.remedy
    assert minio.secret_key not in summary.fault.message
    assert (spool.counts().pending, summary.left, minio.keys(bucket)) == (2, 2, [])


def test_tombstone_lies_beside_the_bundles_and_is_put_once(minio, bucket, store, spool):
    bundle = add_bundle(spool)
    evicted = delivery_of(bundle).keys.manifest.removesuffix(".json") + ".evicted.json"
    spool.remove(bundle, make_tombstone(bundle, bundle.manifest(), "2026-01-02T03:04:05+00:00"))
    other = delivery_of(add_bundle(spool)).keys
    for _ in range(2):
        assert make_shipper(spool, store()).ship_pending().complete
    assert minio.keys(bucket) == sorted([evicted, other.archive, other.manifest])
    document = json.loads(minio.read(bucket, evicted))
    assert (document["id"], document["host"], document["size"]) == (bundle.id, "filer-1", 8)
    head = minio.client.head_object(Bucket=bucket, Key=evicted)
    assert head["ContentType"] == "application/json"


def test_tombstone_waits_for_a_server_that_is_away(minio, spool, tmp_path):
    bundle = add_bundle(spool)
    spool.remove(bundle, make_tombstone(bundle, bundle.manifest(), "2026-01-02T03:04:05+00:00"))
    with MinioServer(minio.binary, tmp_path / "minio") as server:
        bucket = server.create_bucket()
        key_file = credentials_file(tmp_path / "key", server.access_key, server.secret_key)
        config = S3Destination(bucket, server.endpoint_url, credentials_file=key_file)
        store = S3Bucket(config, PROBE_KEY)
        shipper = make_shipper(spool, store)
        server.kill()
        summary = shipper.ship_pending()
        assert isinstance(summary.fault, NetworkFault)
        assert summary.tombstones_left == 1
        server.start()
        assert shipper.ship_pending().complete
        assert [bundle.id in key for key in server.keys(bucket)] == [True]


@pytest.mark.parametrize("size", [1000, PART_SIZE + 1])
def test_key_that_may_only_write_is_enough(minio, bucket, store, spool, tmp_path, size):
    key = restricted_key(minio, bucket, WRITE_ONLY)
    path = credentials_file(tmp_path / "write-only", *key)
    add_bundle(spool, os.urandom(size))
    assert make_shipper(spool, store(credentials_file=path)).ship_pending().complete
    assert len(minio.keys(bucket)) == 2


def test_key_that_may_not_write_is_told_what_to_allow(minio, bucket, store, spool, tmp_path):
    path = credentials_file(tmp_path / "read", *restricted_key(minio, bucket, ["s3:GetObject"]))
    with pytest.raises(DestinationFault, match="AccessDenied") as caught:
        store(credentials_file=path).deliver(delivery_of(add_bundle(spool)))
    assert "s3:PutObject" in caught.value.remedy


def test_new_credentials_need_no_restart(minio, bucket, store, spool, tmp_path):
    add_bundle(spool)
    path = credentials_file(tmp_path / "rotated", "unknown-key", "some-secret")
    shipper = make_shipper(spool, store(credentials_file=path))
    assert isinstance(shipper.ship_pending().fault, DestinationFault)
    credentials_file(path, minio.access_key, minio.secret_key)
    assert shipper.ship_pending().complete


def test_systemd_credential_comes_before_the_environment(
    minio, bucket, store, spool, tmp_path, monkeypatch
):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "unknown-key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "some-secret")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    credentials_file(tmp_path / "s3-credentials", minio.access_key, minio.secret_key)
    store(credentials_file=None).deliver(delivery_of(add_bundle(spool)))
    assert len(minio.keys(bucket)) == 2


@pytest.mark.parametrize("content", [None, "", "# none", "[default]"])
def test_without_systemd_credential_botos_chain_decides(
    minio, bucket, store, spool, tmp_path, monkeypatch, content
):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", minio.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", minio.secret_key)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    if content is not None:
        (tmp_path / "s3-credentials").write_text(content)
    store(credentials_file=None).deliver(delivery_of(add_bundle(spool)))
    assert len(minio.keys(bucket)) == 2


def test_server_that_dies_between_bundles_loses_and_doubles_nothing(minio, spool, tmp_path):
    with MinioServer(minio.binary, tmp_path / "minio") as server:
        bucket = server.create_bucket()
        key_file = credentials_file(tmp_path / "key", server.access_key, server.secret_key)
        config = S3Destination(bucket, server.endpoint_url, credentials_file=key_file)
        store = S3Bucket(config, PROBE_KEY)
        bundles = [add_bundle(spool, os.urandom(1000), NOON + i) for i in range(4)]
        outcomes = []

        def kill_after_the_second(outcome):
            outcomes.append(outcome)
            if len(outcomes) == 2:
                server.kill()

        shipper = make_shipper(spool, store, on_outcome=kill_after_the_second)
        summary = shipper.ship_pending()
        assert isinstance(summary.fault, NetworkFault)
        assert (len(summary.shipped), summary.left) == (2, 2)
        server.start()
        assert shipper.ship_pending().complete
        stored = {key: server.read(bucket, key) for key in server.keys(bucket)}
    assert len(stored) == 8
    for bundle in bundles:
        delivery = delivery_of(bundle)
        assert stored[delivery.keys.archive] == bundle.archive.read_bytes()
        assert stored[delivery.keys.manifest] == bundle.done.read_bytes()
    assert spool.counts().delivered == 4


@pytest.mark.parametrize("size", [100_000, PART_SIZE + 1])
def test_each_byte_that_is_sent_is_paced_once(minio, bucket, store, spool, size):
    taken = []

    class CountingPace(Pace):
        def take(self, amount):
            taken.append(amount)

    store(pace=CountingPace(1, StopSignal())).deliver(
        delivery_of(add_bundle(spool, os.urandom(size)))
    )
    assert sum(taken) == size, "to hash is free"
