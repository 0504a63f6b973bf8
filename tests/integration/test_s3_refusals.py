"""Every refusal of a store with its cause and its cure: a table, and a real MinIO where it can."""

from __future__ import annotations

import contextlib
import datetime
import os
import subprocess
import time
from email.utils import formatdate

import boto3
import botocore.auth
import pytest

from shipper.configuration.schema import S3Destination
from shipper.faults import DestinationFault, Fault, NetworkFault
from shipper.s3 import refusals
from shipper.s3.bucket import S3Bucket
from tests.minio_server import MinioServer
from tests.requirements import skip_or_fail
from tests.s3_support import (
    WRITE_ONLY,
    Stores,
    credentials_file,
    forget_credentials_of_this_machine,
    restricted_key,
)
from tests.shipper_support import PROBE_KEY, add_bundle, delivery_of, new_spool, wait_for
from tests.store_gate import StoreGate

HOUR = 3600
MULTIPART = 17 << 20


@pytest.fixture(autouse=True)
def no_credentials_of_this_machine(monkeypatch):
    forget_credentials_of_this_machine(monkeypatch)


@pytest.fixture
def spool(tmp_path):
    return new_spool(tmp_path / "spool")


def body(code: str, message: str = "", more: str = "") -> bytes:
    return f"<Error><Code>{code}</Code><Message>{message}</Message>{more}</Error>".encode()


AWS_DENIED = (
    "User: arn:aws:iam::1:user/aod is not authorized to perform: {} on resource: "
    '"arn:aws:s3:::evidence/x" because no identity-based policy allows the {} action'
)
DENIED = body("AccessDenied", "Access Denied.")
# Status, body, headers; cause, cure.
CASES = {
    "AWS: put": (
        403, body("AccessDenied", AWS_DENIED.format("s3:PutObject", "s3:PutObject")), {},
        "denied: the key may not PutObject under evidence/fleet/berlin", "allow s3:PutObject",
    ),
    "AWS: tags": (
        403, body("AccessDenied", AWS_DENIED.format("s3:PutObjectTagging", "x")), {},
        "denied: the key may not PutObjectTagging under evidence/fleet/berlin",
        "allow s3:PutObjectTagging",
    ),
    "AWS: KMS": (
        403, body("AccessDenied", AWS_DENIED.format("kms:GenerateDataKey", "x")), {},
        "the key may not kms:GenerateDataKey with the encryption key",
        "allow kms:GenerateDataKey and kms:Decrypt",
    ),
    "MinIO: denied": (
        403, DENIED, {}, "the key may not PutObject under", "see that the bucket exists",
    ),
    "403 without a word": (403, b"", {}, "the key may not PutObject under", "s3:PutObject"),
    "no bucket": (
        404, body("NoSuchBucket"), {}, "bucket evidence does not exist", "create the bucket",
    ),
    "unknown key": (403, body("InvalidAccessKeyId"), {}, "bad key", "credentials file"),
    "wrong secret": (403, body("SignatureDoesNotMatch"), {}, "bad key", "credentials file"),
    "expired": (400, body("ExpiredToken"), {}, "credentials have expired", "renew"),
    "bad token": (400, body("InvalidToken"), {}, "session token", "renew"),
    "clock": (
        403, body("RequestTimeTooSkewed"), {"Date": 14 * 60}, "clock is 14 min off", "set this",
    ),
    "clock behind": (
        403, body("RequestTimeTooSkewed"), {"Date": -3 * 24 * HOUR}, "clock is 3 days off",
        "chrony",
    ),
    "clock, no date": (
        403, body("RequestTimeTooSkewed"), {"Date": None}, "clock is more than the store allows",
        "timedatectl",
    ),
    "clock that nobody names": (
        403, DENIED, {"Date": 5 * HOUR}, "clock is 5 h off", "timedatectl",
    ),
    "region in a header": (
        400, body("AuthorizationHeaderMalformed"), {"x-amz-bucket-region": "eu-south-1"},
        "the bucket is in eu-south-1", "set region: eu-south-1",
    ),
    "region in the body": (
        400, body("IllegalLocationConstraintException", "", "<Region>eu-south-2</Region>"), {},
        "the bucket is in eu-south-2", "set region: eu-south-2",
    ),
    "region nowhere": (
        400, body("IllegalLocationConstraintException"), {}, "wrong region or endpoint",
        "set region and endpoint_url",
    ),
    "full": (507, body("XMinioStorageFull"), {}, "disk full at the store", "make room"),
    "full, while it is written": (
        500, body("InternalError", "cause(no space left on device)"), {}, "disk full at the store",
        "make room",
    ),
    "full, another word": (507, b"", {}, "disk full at the store", "make room"),
    "quota": (400, body("XMinioAdminBucketQuotaExceeded"), {}, "quota", "raise its quota"),
    "KMS key": (
        400, body("KMS.NotFoundException", "Key 'x' does not exist"), {},
        "the encryption key cannot be used: Key 'x' does not exist", "kms_key_id",
    ),
    "no KMS": (
        501, body("NotImplemented", "Server side encryption specified but KMS is not configured"),
        {}, "cannot encrypt", "take 'encryption' out",
    ),
    "too large": (400, body("EntityTooLarge"), {}, "larger than the store takes", "limit"),
    "proxy": (407, b"", {}, "the proxy wants a password", "HTTPS_PROXY"),
    "unheard of": (
        418, body("Teapot", "I am a teapot"), {}, "refused: I am a teapot (Teapot, HTTP 418)",
        "documentation",
    ),
}  # fmt: skip
PASSING = {
    "SlowDown": 503,
    "InternalError": 500,
    "": 502,
    "TooManyRequests": 429,
    "RequestTimeout": 400,
    "OperationAborted": 409,
    "ConditionalRequestConflict": 409,
    "BadDigest": 400,
    "NoSuchUpload": 404,
}


@pytest.fixture
def answered(spool, tmp_path):
    """The fault of a delivery to a store that gives one answer to everything."""
    key_file = credentials_file(tmp_path / "key", "some-key", "some-secret")
    delivery = delivery_of(add_bundle(spool))

    def ask(answer) -> Fault:
        with StoreGate(0, lambda _: answer, lambda _: answer) as gate:
            config = S3Destination(
                "evidence", gate.endpoint_url, "us-east-1", credentials_file=key_file
            )
            store = S3Bucket(config, f"fleet/berlin/{PROBE_KEY}")
            with pytest.raises(Fault) as caught:
                store.deliver(delivery)
        return caught.value

    return ask


@pytest.mark.parametrize("case", CASES)
def test_refusal_has_cause_and_cure(answered, case):
    status, content, headers, cause, cure = CASES[case]
    ahead = headers.get("Date", 0)
    date = {"Date": formatdate(time.time() - ahead, usegmt=True)} if ahead is not None else {}
    fault = answered((status, content, {**headers, **date} if "Date" in headers else headers))
    assert isinstance(fault, DestinationFault)
    assert cause in fault.message
    assert cure in fault.remedy
    assert "{" not in fault.message + fault.remedy
    assert f"HTTP {status}" in fault.message


@pytest.mark.parametrize("code", PASSING)
def test_what_passes_by_itself_is_a_network_fault(answered, code):
    fault = answered((PASSING[code], body(code), {}))
    assert isinstance(fault, NetworkFault)
    assert f"HTTP {PASSING[code]}" in fault.message


@pytest.fixture
def wrong_clock(monkeypatch):
    """Sets the clock of this process, as far as it concerns a store, by so many seconds."""

    def set_by(seconds):
        real = botocore.auth.get_current_datetime
        monkeypatch.setattr(
            botocore.auth,
            "get_current_datetime",
            lambda *arguments: real(*arguments) + datetime.timedelta(seconds=seconds),
        )
        monkeypatch.setattr(refusals, "wall_clock", lambda: time.time() + seconds)

    return set_by


@pytest.fixture
def stores(minio, tmp_path):
    return Stores(minio, minio.create_bucket(), tmp_path)


def fault_of(store: S3Bucket, spool, size: int = 100) -> Fault:
    with pytest.raises(Fault) as caught:
        store.deliver(delivery_of(add_bundle(spool, os.urandom(size)), "fleet/berlin"))
    return caught.value


def arrives(store: S3Bucket, delivery) -> bool:
    with contextlib.suppress(Fault):
        store.deliver(delivery)
        return True
    return False


@pytest.mark.minio
@pytest.mark.parametrize(
    ("seconds", "words"), [(40 * 60, "40 min"), (-3 * HOUR, "3 h"), (5 * 24 * HOUR, "5 days")]
)
def test_real_store_and_a_wrong_clock(stores, spool, wrong_clock, seconds, words):
    wrong_clock(seconds)
    fault = fault_of(stores.open(), spool)
    assert f"clock is {words} off (RequestTimeTooSkewed, HTTP 403)" in fault.message
    assert "chrony" in fault.remedy


@pytest.mark.minio
@pytest.mark.parametrize("size", [100, MULTIPART])
def test_real_store_and_a_key_without_the_right(minio, stores, spool, size):
    key = restricted_key(minio, stores.bucket, ["s3:GetObject"])
    store = S3Bucket(stores.config(key), f"fleet/berlin/{PROBE_KEY}")
    fault = fault_of(store, spool, size)
    place = f"{stores.bucket}/fleet/berlin"
    assert f"denied: the key may not PutObject under {place} (AccessDenied" in fault.message


@pytest.mark.minio
def test_real_store_and_a_key_for_another_prefix(minio, stores, spool):
    key = restricted_key(minio, stores.bucket, WRITE_ONLY, "elsewhere/*")
    fault = fault_of(stores.open(key), spool)
    assert "denied: the key may not PutObject" in fault.message


@pytest.mark.minio
def test_real_store_without_the_bucket(stores, spool):
    fault = fault_of(stores.open(bucket="no-such-bucket"), spool)
    assert "bucket no-such-bucket does not exist" in fault.message


@pytest.mark.minio
def test_real_store_without_a_kms(stores, spool):
    fault = fault_of(stores.open(encryption="aws:kms"), spool)
    assert "cannot encrypt as configured" in fault.message


@pytest.mark.minio
def test_region_that_a_real_store_names_needs_no_cure(minio, spool, tmp_path):
    with MinioServer(minio.binary, tmp_path / "south", MINIO_REGION="eu-south-1") as server:
        arguments = {**server.boto3_arguments(), "region_name": "eu-south-1"}
        stores = Stores(server, "evidence", tmp_path)
        boto3.session.Session().client("s3", **arguments).create_bucket(Bucket="evidence")
        for region in ("eu-north-1", "eu-south-1", None):
            stores.open(region=region).deliver(delivery_of(add_bundle(spool)))


@pytest.mark.minio
@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a tmpfs needs root")
def test_real_store_with_a_full_disk(minio, spool, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "none", str(disk)]
    if subprocess.run(mount, check=False).returncode != 0:
        skip_or_fail("this machine mounts no tmpfs")
    try:
        with MinioServer(minio.binary, disk) as server:
            stores = Stores(server, server.create_bucket(), tmp_path)
            store = stores.open()
            store.deliver(delivery_of(add_bundle(spool)))
            with (disk / "filler").open("wb") as filler:
                filler.write(b"x" * (os.statvfs(disk).f_bavail - 1000) * os.statvfs(disk).f_bsize)
            fault = fault_of(store, spool, 15 << 20)
            assert isinstance(fault, DestinationFault)
            assert "disk full at the store" in fault.message
            (disk / "filler").unlink()
            bundle = delivery_of(add_bundle(spool, os.urandom(15 << 20)))
            wait_for(lambda: arrives(store, bundle), "the store notices that it has room again")
    finally:
        subprocess.run(["umount", str(disk)], check=True)
