"""``aod-shipper verify`` against a directory and a real MinIO."""

import io
import json
import os
import subprocess
from contextlib import redirect_stderr, redirect_stdout

import boto3
import pytest

from shipper.cli import main
from shipper.s3.multipart import PART_SIZE
from tests.minio_server import free_port
from tests.shipper_support import add_bundle, new_spool, run_shipper, write_key


@pytest.fixture
def spool(tmp_path):
    return new_spool(tmp_path / "spool")


class DirectoryStore:
    """A directory as bucket, changed behind the shipper's back."""

    def __init__(self, tmp_path, spool):
        self.root = tmp_path / "bucket"
        self.config = tmp_path / "shipper.yaml"
        self.config.write_text(
            f"spool: {spool.root}\ndestination:\n  type: directory\n  path: {self.root}\n"
        )

    def listing(self):
        files = (path for path in self.root.rglob("*") if path.is_file())
        return sorted(str(path.relative_to(self.root)) for path in files)

    def remove(self, key):
        (self.root / key).unlink()

    def change(self, key, content):
        (self.root / key).write_bytes(content)


class MinioStore:
    """A bucket of its own."""

    def __init__(self, tmp_path, spool, minio):
        self._minio, self._tmp_path, self._spool = minio, tmp_path, spool
        self.bucket = minio.create_bucket()
        self.config = self.config_with(minio.access_key, minio.secret_key)

    def config_with(self, key, secret, token=None, name="shipper", port=None):
        lines = [f"aws_access_key_id = {key}", f"aws_secret_access_key = {secret}"]
        lines += [f"aws_session_token = {token}"] if token else []
        path = self._tmp_path / f"{name}.yaml"
        endpoint = f"http://127.0.0.1:{port}" if port else self._minio.endpoint_url
        path.write_text(
            f"spool: {self._spool.root}\nretry: {{attempts: 1}}\n"
            f"destination:\n  type: s3\n  bucket: {self.bucket}\n  endpoint_url: {endpoint}\n"
            f"  region: us-east-1\n  addressing_style: path\n"
            f"  credentials_file: {write_key(self._tmp_path / f'{name}.key', *lines)}\n"
        )
        return path

    def config_allowing(self, action, *keys):
        """With a key that may do nothing else, with these objects or with all."""
        resources = [f"arn:aws:s3:::{self.bucket}/{key}" for key in keys or ("*",)]
        statement = {"Effect": "Allow", "Action": [action], "Resource": resources}
        tokens = boto3.session.Session().client("sts", **self._minio.boto3_arguments())
        given = tokens.assume_role(
            RoleArn="arn:aws:iam::000000000000:role/any",
            RoleSessionName="test",
            Policy=json.dumps({"Version": "2012-10-17", "Statement": [statement]}),
        )["Credentials"]
        return self.config_with(
            given["AccessKeyId"], given["SecretAccessKey"], given["SessionToken"], name="other"
        )

    def listing(self):
        return self._minio.keys(self.bucket)

    def remove(self, key):
        self._minio.client.delete_object(Bucket=self.bucket, Key=key)

    def change(self, key, content):
        """As somebody would who means to deceive: the metadata stay."""
        head = self._minio.client.head_object(Bucket=self.bucket, Key=key)
        self._minio.client.put_object(
            Bucket=self.bucket, Key=key, Body=content, Metadata=head["Metadata"]
        )

    def forget_metadata(self, key):
        self._minio.client.put_object(
            Bucket=self.bucket, Key=key, Body=self._minio.read(self.bucket, key)
        )


@pytest.fixture(params=["directory", pytest.param("minio", marks=pytest.mark.minio)])
def store(request, tmp_path, spool):
    if request.param == "directory":
        return DirectoryStore(tmp_path, spool)
    return MinioStore(tmp_path, spool, request.getfixturevalue("minio"))


@pytest.fixture
def bucket(tmp_path, spool, minio):
    return MinioStore(tmp_path, spool, minio)


def ship(store, spool, *contents):
    bundles = [add_bundle(spool, content) for content in contents]
    result = run_shipper("once", "--config", store.config)
    assert result.returncode == 0, result.stderr
    return bundles


def verify(store, *arguments, config=None):
    """In this process: boto3 takes a second to load."""
    words = ["verify", *arguments, "--config", str(config or store.config)]
    with redirect_stdout(io.StringIO()) as output, redirect_stderr(io.StringIO()) as errors:
        status = main(words)
    return subprocess.CompletedProcess(words, status, output.getvalue(), errors.getvalue())


def key_of(store, bundle, end):
    (key,) = [one for one in store.listing() if bundle.id in one and one.endswith(end)]
    return key


def test_what_was_delivered_is_right(store, spool):
    ship(store, spool, b"one", b"two", os.urandom(1000))
    for arguments in ((), ("--deep",)):
        result = verify(store, *arguments)
        assert (result.returncode, result.stdout, result.stderr) == (0, "3 right\n", "")


def test_nothing_delivered_is_fine(store):
    result = verify(store)
    assert (result.returncode, result.stdout) == (0, "nothing to verify: there is no receipt\n")


@pytest.mark.parametrize("end", [".json", ".tar.zst"])
def test_missing_object_is_found_and_the_remedy_heals(store, spool, end):
    _, lost = ship(store, spool, b"one", b"two")
    store.remove(key_of(store, lost, end))
    result = verify(store)
    assert result.returncode == 1
    assert f"MISSING {lost.id}" in result.stdout
    assert result.stdout.endswith("1 right, 1 missing\n")
    remedy = f"aod-shipper requeue --delivered {lost.id}"
    assert f"  remedy  {remedy}\n" in result.stdout
    assert run_shipper(*remedy.split()[1:], "--config", store.config).returncode == 0
    assert run_shipper("once", "--config", store.config).returncode == 0
    assert verify(store).stdout == "2 right\n"


def test_without_the_archive_there_is_no_such_remedy(store, spool):
    (bundle,) = ship(store, spool, b"one")
    spool.remove(spool.finished()[0], None)
    assert verify(store).stdout == "1 right\n", "the receipt is enough"
    store.remove(key_of(store, bundle, ".tar.zst"))
    result = verify(store)
    assert "its archive is no longer here" in result.stdout
    assert "requeue" not in result.stdout


@pytest.mark.parametrize(
    ("end", "content", "reason"),
    [
        (".tar.zst", b"evidence!", "the archive has 9 bytes, not 8"),
        (".json", b"{}", "the manifest is not the spool's"),
    ],
)
def test_different_object_is_found(store, spool, end, content, reason):
    (bundle,) = ship(store, spool, b"evidence")
    store.change(key_of(store, bundle, end), content)
    result = verify(store, "--json")
    document = json.loads(result.stdout)
    assert (result.returncode, document["counts"]) == (1, {"different": 1})
    (finding,) = document["findings"]
    assert (finding["id"], finding["reason"]) == (bundle.id, reason)


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"id": 1, "archive": {"size":8,"sha256":""}}'])
def test_manifest_without_the_spools_is_judged_by_what_it_says(store, spool, content):
    (bundle,) = ship(store, spool, b"evidence")
    spool.remove(spool.finished()[0], None)
    store.change(key_of(store, bundle, ".json"), content)
    assert f"DIFFERENT {bundle.id}: the manifest is" in verify(store).stdout


def test_changed_bytes_of_the_same_size_are_found_by_reading_them(store, spool):
    (bundle,) = ship(store, spool, b"evidence")
    store.change(key_of(store, bundle, ".tar.zst"), b"evidenc3")
    deep = verify(store, "--deep")
    assert deep.returncode == 1
    assert f"DIFFERENT {bundle.id}: the archive has another sha256" in deep.stdout
    if isinstance(store, MinioStore):
        assert verify(store).returncode == 0, "the metadata still say that it is right"


def test_receipts_of_another_store_are_told_apart(store, spool):
    bundle, _ = ship(store, spool, b"one", b"two")
    spool.write_receipt(bundle.id, {"destination": "relay berlin"})
    result = verify(store)
    assert (result.returncode, result.stdout.splitlines()[0]) == (1, "1 right, 1 elsewhere")
    assert "name another store than the configuration does now" in result.stdout


def test_relay_cannot_be_verified_from_here(tmp_path, spool):
    spool.write_receipt(add_bundle(spool).id, {"destination": "relay berlin"})
    config = tmp_path / "relay.yaml"
    config.write_text(f"spool: {spool.root}\ndestination:\n  type: relay\n  host: berlin\n")
    result = run_shipper("verify", "--config", config)
    assert result.returncode == 1
    assert "cannot be verified from here; run `aod-shipper verify` on berlin" in result.stdout


def test_spoiled_receipt_is_no_verdict(store, spool):
    bundle, _ = ship(store, spool, b"one", b"two")
    spool.path(bundle.id, ".shipped").write_text("{")
    result = verify(store)
    assert (result.returncode, result.stdout.splitlines()[0]) == (1, "1 right, 1 elsewhere")


def test_unmounted_directory_is_no_lost_evidence(tmp_path, spool):
    store = DirectoryStore(tmp_path, spool)
    ship(store, spool, b"one")
    store.root.rename(tmp_path / "away")
    result = verify(store)
    assert (result.returncode, result.stdout) == (1, "")
    assert "is not there\n  remedy: mount it, or make it" in result.stderr


def test_archive_in_parts_is_verified(bucket, spool):
    ship(bucket, spool, os.urandom(PART_SIZE + 7))
    for arguments in ((), ("--deep",)):
        assert verify(bucket, *arguments).stdout == "1 right\n"


def test_store_that_keeps_no_sha256_wants_a_deep_look(bucket, spool):
    (bundle,) = ship(bucket, spool, b"one")
    bucket.forget_metadata(key_of(bucket, bundle, ".tar.zst"))
    result = verify(bucket)
    assert result.returncode == 1
    assert f"UNPROVEN {bundle.id}: the store keeps no sha256" in result.stdout
    assert verify(bucket, "--deep").stdout == "1 right\n"


@pytest.mark.parametrize("count", [1, 30])
def test_key_that_may_only_write_is_told_which_right_is_missing(bucket, spool, count):
    ship(bucket, spool, *[b"x"] * count)
    result = verify(bucket, config=bucket.config_allowing("s3:PutObject"))
    assert (result.returncode, result.stdout) == (1, "")
    assert "this key may not read (HTTP 403)" in result.stderr
    assert f"allow s3:GetObject on {bucket.bucket}/* and s3:ListBucket" in result.stderr


def test_what_may_not_be_read_is_told_from_what_is_right(bucket, spool):
    readable, closed = ship(bucket, spool, b"one", b"two")
    keys = [key_of(bucket, readable, ".json"), key_of(bucket, readable, ".tar.zst")]
    result = verify(bucket, config=bucket.config_allowing("s3:GetObject", *keys))
    assert result.returncode == 1
    assert f"DENIED {closed.id}: " in result.stdout
    assert "or it is missing: without s3:ListBucket nobody can tell" in result.stdout
    assert result.stdout.endswith("1 right, 1 denied\n")


def test_bucket_that_is_gone_is_no_lost_evidence(bucket, spool):
    ship(bucket, spool, b"one")
    text = bucket.config.read_text().replace(bucket.bucket, "no-such-bucket")
    bucket.config.write_text(text)
    (receipt,) = spool.batches.glob("*.shipped")
    receipt.write_text(receipt.read_text().replace(bucket.bucket, "no-such-bucket"))
    result = verify(bucket)
    assert (result.returncode, result.stdout) == (1, "")
    assert "NoSuchBucket" in result.stderr


def test_store_that_is_away_is_a_network_fault(bucket, spool, minio):
    ship(bucket, spool, b"one")
    port = free_port()
    config = bucket.config_with(minio.access_key, minio.secret_key, name="away", port=port)
    (receipt,) = spool.batches.glob("*.shipped")
    receipt.write_text(receipt.read_text().replace(str(minio.port), str(port)))
    result = verify(bucket, config=config)
    assert (result.returncode, result.stdout) == (1, "")
    assert "check that the store runs" in result.stderr
    assert "Traceback" not in result.stderr
