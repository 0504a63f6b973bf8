"""Archives that go in parts: cut, killed, lost and doubled, against a real MinIO."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import threading

import pytest

from agent.service.stop_signal import StopSignal
from shipper.faults import BundleFault, DestinationFault, NetworkFault
from shipper.s3 import multipart
from shipper.s3.bucket import S3Bucket
from shipper.s3.upload_note import read_note
from tests.s3_support import (
    SHIPPER,
    WRITE_ONLY,
    Stores,
    credentials_file,
    forget_credentials_of_this_machine,
    restricted_key,
)
from tests.shipper_support import (
    PROBE_KEY,
    add_bundle,
    delivery_of,
    new_spool,
    run_shipper,
    shipper_command,
)
from tests.store_gate import Fate, StoreGate, error_body
from tests.store_matrix.victim import PART_SIZE, small_parts

pytestmark = pytest.mark.minio

PARTS = 4
PART_SIZE_AS_SHIPPED = multipart.PART_SIZE
CREATE, PART, COMPLETE = "CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload"


@pytest.fixture(autouse=True)
def no_credentials_of_this_machine(monkeypatch):
    forget_credentials_of_this_machine(monkeypatch)


@pytest.fixture(autouse=True)
def parts():
    """Of the usual size they were a hundred megabytes a test."""
    with small_parts():
        yield


@pytest.fixture
def bucket(minio):
    return minio.create_bucket()


@pytest.fixture
def stores(minio, bucket, tmp_path):
    return Stores(minio, bucket, tmp_path)


@pytest.fixture
def bundle(tmp_path):
    return bundle_in_parts(tmp_path, PART_SIZE)


def bundle_in_parts(directory, part_size):
    spool = new_spool(directory / "spool")
    return add_bundle(spool, os.urandom((PARTS - 1) * part_size + 12_345))


@pytest.fixture
def gate(minio):
    with StoreGate(minio.port) as gate:
        yield gate


def cut_at(gate: StoreGate, operation: str, number: int, fate=Fate.LOSE_REQUEST) -> None:
    """Hinder the ``number``-th request of this kind, and no other."""
    seen = []

    def decide(request):
        if request.operation == operation:
            seen.append(request)
            if len(seen) == number:
                return fate
        return Fate.PASS

    gate.decide = decide


def is_whole(stores: Stores, bundle) -> bool:
    """Whether the store has the bundle once and nothing else, and the disk no note."""
    delivery = delivery_of(bundle)
    keys = sorted([delivery.keys.archive, delivery.keys.manifest])
    assert stores.minio.keys(stores.bucket) == keys
    assert stores.minio.read(stores.bucket, delivery.keys.archive) == bundle.archive.read_bytes()
    assert stores.unfinished() == []
    return not delivery.upload_note.exists()


@pytest.mark.parametrize("fate", [Fate.LOSE_REQUEST, (503, error_body("SlowDown"))])
def test_cut_upload_goes_on_with_the_next_part(stores, gate, bundle, fate):
    store, delivery = stores.open(endpoint_url=gate.endpoint_url), delivery_of(bundle)
    cut_at(gate, PART, 3, fate)
    with pytest.raises(NetworkFault):
        store.deliver(delivery)
    assert len(read_note(delivery.upload_note).etags) == 2
    gate.requests.clear()
    stores.open(endpoint_url=gate.endpoint_url).deliver(delivery)
    assert gate.operations == [PART, PART, COMPLETE, "PutObject"]
    assert [request.query.get("partNumber") for request in gate.requests[:2]] == [["3"], ["4"]]
    assert is_whole(stores, bundle)


@pytest.mark.parametrize(
    "operation", [CREATE, PART, COMPLETE, "PutObject"], ids=lambda name: f"reply to {name}"
)
def test_lost_reply_is_harmless(stores, gate, bundle, operation):
    store, delivery = stores.open(endpoint_url=gate.endpoint_url), delivery_of(bundle)
    cut_at(gate, operation, 1, Fate.LOSE_REPLY)
    with pytest.raises(NetworkFault):
        store.deliver(delivery)
    store.deliver(delivery)
    if operation == CREATE:  # of that one nobody knows: the lifecycle rule is for it
        (left,) = stores.minio.client.list_multipart_uploads(Bucket=stores.bucket)["Uploads"]
        stores.minio.client.abort_multipart_upload(
            Bucket=stores.bucket, Key=left["Key"], UploadId=left["UploadId"]
        )
    assert is_whole(stores, bundle)


def test_reply_that_was_lost_at_the_end_sends_nothing_again(stores, gate, bundle):
    store = stores.open(endpoint_url=gate.endpoint_url)
    cut_at(gate, COMPLETE, 1, Fate.LOSE_REPLY)
    with pytest.raises(NetworkFault):
        store.deliver(delivery_of(bundle))
    gate.requests.clear()
    store.deliver(delivery_of(bundle))
    assert PART not in gate.operations
    assert is_whole(stores, bundle)


def test_reply_that_was_lost_at_the_end_of_a_store_without_conditions(stores, gate, bundle):
    fates = [Fate.LOSE_REPLY]

    def decide(request):
        if request.conditional:
            return 501, error_body("NotImplemented")
        return fates.pop() if fates and request.operation == COMPLETE else Fate.PASS

    gate.decide = decide
    store = stores.open(endpoint_url=gate.endpoint_url)
    with pytest.raises(NetworkFault):
        store.deliver(delivery_of(bundle))
    gate.requests.clear()
    store.deliver(delivery_of(bundle))
    assert PART not in gate.operations
    assert is_whole(stores, bundle)


def test_reply_that_was_lost_at_the_end_with_a_key_that_may_only_write(
    minio, bucket, stores, gate, bundle
):
    key = restricted_key(minio, bucket, WRITE_ONLY)
    store = stores.open(key, endpoint_url=gate.endpoint_url)
    cut_at(gate, COMPLETE, 1, Fate.LOSE_REPLY)
    with pytest.raises(NetworkFault):
        store.deliver(delivery_of(bundle))
    store.deliver(delivery_of(bundle))
    assert is_whole(stores, bundle)


def test_upload_that_the_store_forgot_begins_anew(stores, gate, bundle):
    store, delivery = stores.open(endpoint_url=gate.endpoint_url), delivery_of(bundle)
    cut_at(gate, PART, 3)
    with pytest.raises(NetworkFault):
        store.deliver(delivery)
    stores.minio.client.abort_multipart_upload(**read_note(delivery.upload_note).place())
    gate.requests.clear()
    store.deliver(delivery)
    assert gate.operations.count(CREATE) == 1
    assert is_whole(stores, bundle)


@pytest.mark.parametrize(
    "change",
    [
        {"sha256": "ab" * 32},
        {"key": "filer-2/other.tar.zst"},
        {"bucket": "other"},
        {"store": "s3://evidence"},
        {"part_size": PART_SIZE + 1},
        {"etags": ("x",) * (PARTS + 1)},
        {"etags": ("x", "y")},
        {"upload_id": "never heard of"},
    ],
    ids=str,
)
def test_note_that_does_not_fit_begins_anew(stores, gate, bundle, change):
    store, delivery = stores.open(endpoint_url=gate.endpoint_url), delivery_of(bundle)
    cut_at(gate, PART, 3)
    with pytest.raises(NetworkFault):
        store.deliver(delivery)
    note = read_note(delivery.upload_note)
    dataclasses.replace(note, **change).write(delivery.upload_note)
    gate.requests.clear()
    store.deliver(delivery)
    assert CREATE in gate.operations
    stores.minio.client.abort_multipart_upload(**note.place())
    assert is_whole(stores, bundle)


def test_disk_that_takes_no_note_stops_nothing(stores, bundle, tmp_path):
    delivery = dataclasses.replace(delivery_of(bundle), upload_note=tmp_path / "no" / "note")
    stores.open().deliver(delivery)
    assert is_whole(stores, bundle)


def test_archive_that_changed_after_the_cut_is_aborted(stores, gate, bundle):
    store, delivery = stores.open(endpoint_url=gate.endpoint_url), delivery_of(bundle)
    cut_at(gate, PART, 3)
    with pytest.raises(NetworkFault):
        store.deliver(delivery)
    with bundle.archive.open("r+b") as file:
        file.write(b"\0" * 10)
    with pytest.raises(BundleFault, match="sha256"):
        store.deliver(delivery)
    assert stores.minio.keys(stores.bucket) == []
    assert stores.unfinished() == []
    assert not delivery.upload_note.exists()


def test_archive_that_was_cut_short_is_aborted(stores, gate, bundle):
    store, delivery = stores.open(endpoint_url=gate.endpoint_url), delivery_of(bundle)
    cut_at(gate, PART, 3)
    with pytest.raises(NetworkFault):
        store.deliver(delivery)
    os.truncate(bundle.archive, bundle.size - 1)
    with pytest.raises(BundleFault, match="bytes"):
        store.deliver(delivery)
    assert (stores.unfinished(), delivery.upload_note.exists()) == ([], False)


def test_parts_of_other_bytes_are_not_completed(stores, gate, bundle):
    """The archive was another one while its first parts were sent, and is the right one again."""
    store, delivery = stores.open(endpoint_url=gate.endpoint_url), delivery_of(bundle)
    right = bundle.archive.read_bytes()
    bundle.archive.write_bytes(b"wrong" + right[5:])
    cut_at(gate, PART, 3)
    with pytest.raises(NetworkFault):
        store.deliver(delivery)
    bundle.archive.write_bytes(right)
    store.deliver(delivery)
    assert is_whole(stores, bundle)


def test_upload_begun_with_other_attributes_is_not_gone_on_with(stores, gate, bundle):
    store, delivery = stores.open(endpoint_url=gate.endpoint_url), delivery_of(bundle)
    cut_at(gate, PART, 3)
    with pytest.raises(NetworkFault):
        store.deliver(delivery)
    tags = (("team", "storage"),)
    stores.open(endpoint_url=gate.endpoint_url, tags=tags).deliver(delivery)
    place = {"Bucket": stores.bucket, "Key": delivery.keys.archive}
    found = stores.minio.client.get_object_tagging(**place)["TagSet"]
    assert {tag["Key"]: tag["Value"] for tag in found} == dict(tags)
    assert is_whole(stores, bundle)


@pytest.mark.parametrize(
    "answer",
    [(400, error_body("InvalidArgument")), (403, error_body("AccessDenied"))],
    ids=["InvalidArgument", "AccessDenied"],
)
def test_upload_that_the_store_will_not_go_on_with_begins_anew(stores, gate, bundle, answer):
    """As after a move to another kind of store, or with the key of another owner."""
    store, delivery = stores.open(endpoint_url=gate.endpoint_url), delivery_of(bundle)
    cut_at(gate, PART, 3)
    with pytest.raises(NetworkFault):
        store.deliver(delivery)
    old = read_note(delivery.upload_note)
    gate.decide = lambda request: (
        answer if request.query.get("uploadId") == [old.upload_id] else Fate.PASS
    )
    store.deliver(delivery)
    stores.minio.client.abort_multipart_upload(**old.place())
    assert is_whole(stores, bundle)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (error_body("InternalError"), NetworkFault),
        (b"<CompleteMultipartUploadResult><ETag>", NetworkFault),
        (b"", DestinationFault),
        (b"<html>please log in</html>", DestinationFault),
    ],
)
def test_yes_that_is_none_is_a_fault_and_the_upload_goes_on(stores, gate, bundle, body, kind):
    store = stores.open(endpoint_url=gate.endpoint_url)
    cut_at(gate, COMPLETE, 1, (200, body))
    with pytest.raises(kind):
        store.deliver(delivery_of(bundle))
    gate.requests.clear()
    store.deliver(delivery_of(bundle))
    assert PART not in gate.operations
    assert is_whole(stores, bundle)


def test_something_else_under_the_key_is_overwritten(stores, bundle):
    delivery = delivery_of(bundle)
    stores.minio.client.put_object(
        Bucket=stores.bucket, Key=delivery.keys.archive, Body=b"something else"
    )
    stores.open().deliver(delivery)
    assert is_whole(stores, bundle)


def test_same_under_the_key_leaves_no_parts_behind(stores, gate, bundle):
    stores.open().deliver(delivery_of(bundle))
    before = stores.minio.objects(stores.bucket)
    stores.open(endpoint_url=gate.endpoint_url).deliver(delivery_of(bundle))
    assert "AbortMultipartUpload" in gate.operations
    assert stores.minio.objects(stores.bucket) == before
    assert is_whole(stores, bundle)


def cut_upload(stores: Stores, gate: StoreGate, bundle, **settings) -> tuple[S3Bucket, object]:
    store = stores.open(endpoint_url=gate.endpoint_url, **settings)
    cut_at(gate, PART, 2)
    with pytest.raises(NetworkFault):
        store.deliver(delivery_of(bundle))
    gate.requests.clear()
    return store, delivery_of(bundle).upload_note


def test_upload_of_a_bundle_that_is_gone_is_aborted_however_often(stores, gate, bundle):
    store, note = cut_upload(stores, gate, bundle)
    for _ in range(2):
        store.abandon(note)
    assert gate.operations == ["AbortMultipartUpload"] * 2
    assert stores.unfinished() == []


def test_senseless_note_is_nothing_to_abandon(stores, gate, bundle):
    store, note = cut_upload(stores, gate, bundle)
    other = dataclasses.replace(read_note(note), bucket="other")
    note.unlink()
    store.abandon(note)
    note.write_bytes(b"nonsense")
    store.abandon(note)
    other.write(note)
    store.abandon(note)
    assert gate.operations == []


def test_key_that_may_not_abort_leaves_it_to_the_lifecycle_rule(
    minio, bucket, stores, gate, bundle, caplog
):
    caplog.set_level("INFO")
    store, note = cut_upload(stores, gate, bundle, key=restricted_key(minio, bucket, WRITE_ONLY))
    store.abandon(note)
    assert "lifecycle rule" in caplog.text
    assert len(stores.unfinished()) == 1
    stores.open(restricted_key(minio, bucket, SHIPPER), endpoint_url=gate.endpoint_url).abandon(
        note
    )
    assert stores.unfinished() == []


def test_store_that_is_away_can_be_asked_to_abort_later(stores, gate, bundle):
    store, note = cut_upload(stores, gate, bundle)
    gate.decide = lambda _: Fate.LOSE_REQUEST
    with pytest.raises(NetworkFault):
        store.abandon(note)


def test_killed_in_the_middle_it_goes_on_after_a_restart(stores, gate, tmp_path):
    bundle = bundle_in_parts(tmp_path, PART_SIZE_AS_SHIPPED)
    credentials = credentials_file(tmp_path / "key", stores.minio.access_key, "x")
    credentials_file(credentials, stores.minio.access_key, stores.minio.secret_key)
    config = tmp_path / "shipper.yaml"
    config.write_text(
        f"spool: {tmp_path / 'spool'}\ndestination:\n  type: s3\n  bucket: {stores.bucket}\n"
        f"  endpoint_url: {gate.endpoint_url}\n  credentials_file: {credentials}\n"
    )
    reached, killed = threading.Event(), threading.Event()

    def hold_at_the_third_part(request):
        if request.query.get("partNumber") == ["3"] and not killed.is_set():
            reached.set()
            killed.wait(60)
            return Fate.LOSE_REQUEST
        return Fate.PASS

    gate.decide = hold_at_the_third_part
    process = subprocess.Popen(shipper_command("once", "--config", config), stderr=subprocess.PIPE)
    assert reached.wait(60)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    killed.set()
    gate.requests.clear()
    result = run_shipper("once", "--config", config)
    assert result.returncode == 0, result.stderr
    assert gate.operations == [PART, PART, COMPLETE, "PutObject"]
    assert is_whole(stores, bundle)


def test_told_to_stop_it_sends_no_further_part_and_goes_on_after_a_start(stores, gate, bundle):
    stop, delivery = StopSignal(), delivery_of(bundle)

    def stop_at_the_second_part(request):
        if request.query.get("partNumber") == ["2"]:
            stop.set()
        return Fate.PASS

    gate.decide = stop_at_the_second_part
    config = stores.config(endpoint_url=gate.endpoint_url)
    with pytest.raises(NetworkFault, match="told to stop"):
        S3Bucket(config, PROBE_KEY, stop=stop).deliver(delivery)
    assert len(read_note(delivery.upload_note).etags) == 2, "what was under way has arrived"
    gate.requests.clear()
    S3Bucket(config, PROBE_KEY, stop=StopSignal()).deliver(delivery)
    assert gate.operations == [PART, PART, COMPLETE, "PutObject"]
    assert is_whole(stores, bundle)
