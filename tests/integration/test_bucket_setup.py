"""What `aod-shipper bucket-policy` prints is applied to a real MinIO with TLS, and is enough."""

from __future__ import annotations

import json
import os
import re

import boto3
import botocore.exceptions
import pytest

from shipper.configuration.schema import S3Destination
from shipper.destinations.object_key import heartbeat_key
from shipper.s3.bucket import S3Bucket
from shipper.s3.bucket_setup import PARTS, BucketSetup
from tests.certificates import make_certificate
from tests.minio_server import MinioServer
from tests.s3_support import Stores, forget_credentials_of_this_machine, temporary_key
from tests.shipper_support import add_bundle, delivery_of, new_spool, run_shipper

pytestmark = pytest.mark.minio

BUCKET = "aod-evidence"
TAGS = (("team", "storage"),)


@pytest.fixture(autouse=True)
def no_credentials_of_this_machine(monkeypatch):
    forget_credentials_of_this_machine(monkeypatch)


@pytest.fixture(scope="module")
def server(minio, tmp_path_factory):
    directory = tmp_path_factory.mktemp("tls")
    certificates = directory / ".minio" / "certs"
    pem = make_certificate(certificates)
    (certificates / "tls.crt").rename(certificates / "public.crt")
    (certificates / "tls.key").rename(certificates / "private.key")
    with MinioServer(minio.binary, directory, ca_bundle=pem) as server:
        server.create_bucket(BUCKET)
        yield server


@pytest.fixture
def printed(server, tmp_path):
    """The parts as the command prints them for a configuration."""
    config = tmp_path / "shipper.yaml"
    config.write_text(
        "prefix: fleet/berlin\ndestination:\n  type: s3\n"
        f"  bucket: {BUCKET}\n  endpoint_url: {server.endpoint_url}\n  tags: {{team: storage}}\n"
    )

    def run(*options):
        result = run_shipper("bucket-policy", "--config", config, *options)
        assert result.returncode == 0, result.stderr
        return result.stdout

    return run


@pytest.fixture
def applied(server, printed):
    parts = json.loads(printed("--json"))
    server.client.put_bucket_policy(Bucket=BUCKET, Policy=json.dumps(parts["bucket"]))
    server.client.put_bucket_lifecycle_configuration(
        Bucket=BUCKET, LifecycleConfiguration=parts["lifecycle"]
    )
    server.client.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration=parts["versioning"])
    return parts


@pytest.fixture
def ship(server, tmp_path):
    """A function that opens the destination of a host with a key that has this policy."""
    stores = Stores(server, BUCKET, tmp_path)

    def open_store(policy, host="filer-1"):
        key = temporary_key(server, json.dumps(policy))
        config = stores.config(key, ca_bundle=server.boto3_arguments()["verify"], tags=TAGS)
        return S3Bucket(config, heartbeat_key("fleet/berlin", host))

    return open_store


def client_with(server, policy):
    key, secret, token = temporary_key(server, json.dumps(policy))
    arguments = {
        **server.boto3_arguments(),
        "aws_access_key_id": key,
        "aws_secret_access_key": secret,
        "aws_session_token": token,
    }
    return boto3.session.Session().client("s3", **arguments)


@pytest.mark.parametrize("size", [1000, 17 << 20])
def test_key_with_the_printed_policy_ships(server, applied, ship, tmp_path, size):
    store = ship(applied["shipper"])
    assert {finding.state for finding in store.check()} == {"ok"}
    bundle = add_bundle(new_spool(tmp_path / "spool"), os.urandom(size))
    delivery = delivery_of(bundle, "fleet/berlin")
    store.deliver(delivery)
    assert server.read(BUCKET, delivery.keys.archive) == bundle.archive.read_bytes()
    reader = client_with(server, applied["reader"])
    found = reader.list_objects_v2(Bucket=BUCKET, Prefix="fleet/berlin/")["Contents"]
    assert delivery.keys.archive in [entry["Key"] for entry in found]
    content = reader.get_object(Bucket=BUCKET, Key=delivery.keys.archive)["Body"].read()
    assert content == bundle.archive.read_bytes()
    for denied in (reader.delete_object, reader.get_bucket_policy, reader.put_object):
        arguments = {"Bucket": BUCKET}
        if denied != reader.get_bucket_policy:
            arguments["Key"] = delivery.keys.archive
        with pytest.raises(botocore.exceptions.ClientError, match="AccessDenied"):
            denied(**arguments)


def test_shippers_key_may_not_read_list_or_leave_its_prefix(server, applied):
    client = client_with(server, applied["shipper"])
    for attempt in (
        lambda: client.list_objects_v2(Bucket=BUCKET, Prefix="fleet/berlin/"),
        lambda: client.get_object(Bucket=BUCKET, Key="fleet/berlin/filer-1/heartbeat.json"),
        lambda: client.delete_object(Bucket=BUCKET, Key="fleet/berlin/filer-1/heartbeat.json"),
        lambda: client.put_object(Bucket=BUCKET, Key="fleet/paris/x", Body=b"x"),
        lambda: client.put_object(Bucket=BUCKET, Key="fleet/berlin", Body=b"x"),
    ):
        with pytest.raises(botocore.exceptions.ClientError, match="AccessDenied"):
            attempt()


def test_key_of_one_host_writes_into_its_own_folder_alone(server, applied, printed, ship):
    policy = json.loads(printed("--host", "filer-1", "--part", "shipper"))
    assert {finding.state for finding in ship(policy).check()} == {"ok"}
    states = {finding.step: finding.state for finding in ship(policy, "filer-2").check()}
    assert states["right to put"] == "failed"


def test_bucket_has_what_was_printed(server, applied):
    rules = server.client.get_bucket_lifecycle_configuration(Bucket=BUCKET)["Rules"]
    states = {rule["ID"]: rule["Status"] for rule in rules}
    assert states == {"clear-what-is-left-over": "Enabled", "expire-evidence": "Disabled"}
    assert server.client.get_bucket_versioning(Bucket=BUCKET)["Status"] == "Enabled"
    policy = json.loads(server.client.get_bucket_policy(Bucket=BUCKET)["Policy"])
    (statement,) = policy["Statement"]
    assert statement["Effect"] == "Deny"
    assert statement["Condition"] == {"Bool": {"aws:SecureTransport": ["false"]}}


def test_text_has_every_part_and_the_commands(printed):
    text = printed()
    for part in PARTS:
        assert f"--part {part} > {part}.json" in text
        assert json.loads(printed("--part", part)) == json.loads(printed("--json"))[part]
    for command in ("aws s3api put-bucket-lifecycle-configuration", "mc ilm rule import"):
        assert command in text
    assert BUCKET in text
    assert "{" + "bucket}" not in text


@pytest.mark.parametrize(
    ("key", "resource", "condition"),
    [
        ("arn:aws:kms:eu-1:1:key/x", "arn:aws:kms:eu-1:1:key/x", None),
        ("1234-5678", "arn:aws:kms:*:*:key/1234-5678", None),
        (
            "alias/aod",
            "arn:aws:kms:*:*:key/*",
            {"ForAnyValue:StringEquals": {"kms:ResourceAliases": "alias/aod"}},
        ),
        (
            "arn:aws:kms:eu-1:1:alias/aod",
            "arn:aws:kms:eu-1:1:key/*",
            {"ForAnyValue:StringEquals": {"kms:ResourceAliases": "alias/aod"}},
        ),
    ],
)
def test_encryption_key_is_in_the_policy_for_aws(key, resource, condition):
    config = S3Destination(BUCKET, encryption="aws:kms", kms_key_id=key)
    documents = BucketSetup(config, "").documents()
    *_, statement = documents["shipper"]["Statement"]
    assert statement["Action"] == ["kms:GenerateDataKey", "kms:Decrypt"]
    assert statement["Resource"] == [resource]
    assert statement.get("Condition") == condition
    assert documents["reader"]["Statement"][-1]["Action"] == ["kms:Decrypt"]
    other = S3Destination(BUCKET, "https://minio.example", encryption="aws:kms", kms_key_id=key)
    assert "kms:" not in json.dumps(BucketSetup(other, "").documents())


@pytest.mark.parametrize(
    ("region", "endpoint", "partition"),
    [
        ("eu-central-1", None, "aws"),
        ("cn-north-1", None, "aws-cn"),
        ("us-gov-west-1", "https://s3.us-gov-west-1.amazonaws.com", "aws-us-gov"),
        ("cn-north-1", "https://minio.example", "aws"),
    ],
)
def test_names_are_those_of_the_regions_partition(region, endpoint, partition):
    config = S3Destination(BUCKET, endpoint, region, encryption="aws:kms", kms_key_id="1-2")
    text = json.dumps(BucketSetup(config, "fleet").documents())
    assert set(re.findall(r'"arn:([^:]+):', text)) == {partition}


def test_store_without_tls_is_not_to_be_locked(printed):
    assert "lock the shipper out" not in printed()
    setup = BucketSetup(S3Destination(BUCKET, "http://127.0.0.1:9000"), "fleet")
    assert "lock the shipper out" in setup.as_text()


def test_destination_that_is_no_bucket_is_wrong_usage(tmp_path):
    config = tmp_path / "shipper.yaml"
    config.write_text(f"destination:\n  type: directory\n  path: {tmp_path / 'bucket'}\n")
    result = run_shipper("bucket-policy", "--config", config)
    assert (result.returncode, "no bucket" in result.stderr) == (2, True)
