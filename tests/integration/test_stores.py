"""The S3 destination against each store of the tests, and what docs/stores.md says of them."""

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from shipper.configuration.schema import S3Destination
from shipper.faults import DestinationFault, Fault, NetworkFault
from shipper.s3.bucket import S3Bucket
from shipper.s3.multipart import PART_SIZE
from tests.shipper_support import (
    PROBE_KEY,
    TcpGate,
    add_bundle,
    delivery_of,
    make_shipper,
    new_spool,
    wait_for,
    write_key,
)
from tests.store_differences import QUESTIONS, full_disk, small_disk
from tests.store_examiner import Examiner, answer_to, clock_behind

pytestmark = pytest.mark.store

DOCUMENT = Path(__file__).parents[2] / "docs" / "stores.md"
needs_mount = pytest.mark.skipif(os.geteuid() != 0, reason="mounting a tmpfs needs root")


@pytest.fixture
def spool(tmp_path):
    return new_spool(tmp_path / "spool")


@pytest.fixture
def key_file(tmp_path):
    """A function that writes a credentials file for a store, with other values on demand."""

    def write(store, key=None, secret=None, token=None):
        lines = [
            f"aws_access_key_id = {key or store.access_key}",
            f"aws_secret_access_key = {secret or store.secret_key}",
            *([f"aws_session_token = {token}"] if token else []),
        ]
        return write_key(tmp_path / "key", *lines)

    return write


@pytest.fixture
def bucket(any_store):
    return any_store.create_bucket()


@pytest.fixture
def destination(any_store, bucket, key_file):
    """A function that makes the destination, with other settings on demand."""

    def make(**changes):
        settings = {"bucket": bucket, "endpoint_url": any_store.endpoint_url}
        if "credentials_file" not in changes:
            changes["credentials_file"] = key_file(any_store)
        return S3Bucket(S3Destination(**{**settings, **changes}), PROBE_KEY)

    return make


@pytest.mark.parametrize("size", [0, 100_000, PART_SIZE, PART_SIZE + 1, 2 * PART_SIZE + 7])
def test_every_size_arrives_whole(any_store, bucket, destination, spool, size):
    bundle = add_bundle(spool, os.urandom(size))
    delivery = delivery_of(bundle, "fleet/berlin")
    for _ in range(2):  # the second changes nothing
        destination().deliver(delivery)
    assert any_store.keys(bucket) == sorted([delivery.keys.archive, delivery.keys.manifest])
    content = any_store.read(bucket, delivery.keys.archive)
    assert (len(content), hashlib.sha256(content).hexdigest()) == (size, delivery.sha256)
    assert any_store.read(bucket, delivery.keys.manifest) == bundle.done.read_bytes()
    head = any_store.client.head_object(Bucket=bucket, Key=delivery.keys.archive)
    assert head["Metadata"] == {"sha256": delivery.sha256}
    assert head["ContentType"] == "application/zstd"


@pytest.mark.parametrize(("size", "puts"), [(1000, 1), (PART_SIZE + 1, 2)])
def test_manifest_is_written_last(any_store, bucket, destination, spool, size, puts):
    delivery = delivery_of(add_bundle(spool, os.urandom(size)))
    with ThreadPoolExecutor(1) as pool:
        with TcpGate(any_store.port, hold=puts + 1) as gate:
            store = destination(endpoint_url=gate.endpoint_url)
            attempt = pool.submit(store.deliver, delivery)
            wait_for(gate.held.is_set, "the request with the manifest")
        with pytest.raises(NetworkFault):
            attempt.result()
    assert any_store.keys(bucket) == [delivery.keys.archive]
    assert len(any_store.read(bucket, delivery.keys.archive)) == size


def refusal(spool, destination):
    """What keeps two bundles from a store that refuses."""
    for _ in range(2):
        add_bundle(spool)
    summary = make_shipper(spool, destination).ship_pending()
    assert isinstance(summary.fault, DestinationFault)
    assert (spool.counts().pending, summary.left) == (2, 2)
    return summary.fault


@pytest.mark.parametrize(
    "wrong", [{"key": "unknown-key"}, {"secret": "some-other-secret"}, {"token": "no-token"}]
)
def test_wrong_key_names_its_remedy(any_store, bucket, destination, key_file, spool, wrong):
    fault = refusal(spool, destination(credentials_file=key_file(any_store, **wrong)))
    assert "credentials" in fault.remedy
    assert any_store.secret_key not in fault.message
    assert any_store.keys(bucket) == []


@pytest.mark.usefixtures("bucket")
def test_missing_bucket_names_its_remedy(destination, spool):
    fault = refusal(spool, destination(bucket="no-such-bucket"))
    assert "NoSuchBucket" in fault.message
    assert "create the bucket" in fault.remedy


def test_wrong_clock_names_its_remedy(destination, spool):
    with clock_behind(minutes=20):
        fault = refusal(spool, destination())
    assert "this host's clock" in fault.remedy


@pytest.mark.parametrize("encryption", ["AES256", "aws:kms"])
def test_store_that_does_not_encrypt_gets_no_evidence(
    any_store, bucket, destination, spool, encryption
):
    """One of them says so, the other takes everything and keeps it in clear."""
    with pytest.raises(DestinationFault, match=r"encrypt|NotImplemented|501"):
        destination(encryption=encryption).deliver(delivery_of(add_bundle(spool)))
    assert any_store.keys(bucket) == []


@needs_mount
def test_full_store_names_its_remedy(any_store, key_file, spool):
    with small_disk() as directory, type(any_store)(any_store.binary, directory) as server:
        bucket = server.create_bucket()
        store = S3Bucket(
            S3Destination(bucket, server.endpoint_url, credentials_file=key_file(server)), PROBE_KEY
        )
        filling = Examiner(server)
        faults = []

        def refused_for_good():
            answer_to(lambda: filling.put(body=os.urandom(1 << 20)))
            try:
                store.deliver(delivery_of(add_bundle(spool, os.urandom(1 << 20))))
            except Fault as fault:
                faults.append(fault)
            return faults and isinstance(faults[-1], DestinationFault)

        wait_for(refused_for_good, "the store tells that it is full")
    assert "make room" in faults[-1].remedy


def rows():
    """The documented answers: question to answers by store, in the order of the table's head."""
    lines = [line for line in DOCUMENT.read_text().splitlines() if line.startswith("| ")]
    head, _, *body = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {question: dict(zip(head[1:], answers, strict=True)) for question, *answers in body}


def test_documented_table_has_every_question_once():
    assert list(rows()) == list(QUESTIONS)


@pytest.mark.parametrize("question", QUESTIONS)
def test_store_answers_as_documented(any_store, question):
    ask = QUESTIONS[question]
    if ask is full_disk and os.geteuid() != 0:
        pytest.skip("mounting a tmpfs needs root")
    assert ask(Examiner(any_store)) == rows()[question][any_store.name], (
        "python -m tests.store_differences prints the table of docs/stores.md anew"
    )
