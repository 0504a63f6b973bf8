"""`aod-shipper check` against a real MinIO and against what can be wrong before it."""

from __future__ import annotations

import base64
import datetime
import json
import os
import socket
from pathlib import Path

import pytest

from shipper.s3 import refusals
from tests.certificates import make_certificate
from tests.minio_server import MinioServer, free_port
from tests.s3_support import (
    SHIPPER,
    WRITE_ONLY,
    Stores,
    forget_credentials_of_this_machine,
    restricted_key,
)
from tests.shipper_support import PROBE_KEY, add_bundle, new_spool, run_shipper
from tests.store_gate import Fate, StoreGate, error_body

pytestmark = pytest.mark.minio

ALL_STEPS = ["credentials", "name", "network", "TLS", "clock"]
ALL_STEPS += ["right to put", "right to abort", "conditional writes"]


@pytest.fixture(autouse=True)
def no_credentials_of_this_machine(monkeypatch):
    forget_credentials_of_this_machine(monkeypatch)


@pytest.fixture
def bucket(minio):
    return minio.create_bucket()


@pytest.fixture
def stores(minio, bucket, tmp_path):
    return Stores(minio, bucket, tmp_path)


def findings(store) -> dict:
    return {finding.step: finding for finding in store.check()}


def failed(store):
    """The one thing that failed, and the steps before it."""
    found = list(store.check())
    assert [finding.state for finding in found[:-1]].count("failed") == 0
    assert found[-1].state == "failed"
    return found[-1]


@pytest.mark.parametrize("actions", [SHIPPER, WRITE_ONLY])
def test_key_that_may_only_write_is_enough_and_nothing_is_left(minio, bucket, stores, actions):
    minio.client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    minio.client.put_object(Bucket=bucket, Key=PROBE_KEY, Body=b"a heartbeat")
    found = findings(stores.open(restricted_key(minio, bucket, actions)))
    assert list(found) == ALL_STEPS
    assert not [one for one in found.values() if one.state == "failed"]
    assert found["right to put"].state == "ok"
    assert "they work" in found["conditional writes"].detail
    (version,) = minio.client.list_object_versions(Bucket=bucket)["Versions"]
    assert version["Key"] == PROBE_KEY
    assert minio.read(bucket, PROBE_KEY) == b"a heartbeat"
    if actions == SHIPPER:
        assert found["right to abort"].state == "ok"
        assert stores.unfinished() == []
    else:
        assert found["right to abort"].state == "warning"
        assert "lifecycle" in found["right to abort"].remedy


def test_empty_bucket_stays_empty(minio, bucket, stores):
    found = findings(stores.open())
    assert "first heartbeat" in found["conditional writes"].detail
    assert "Versions" not in minio.client.list_object_versions(Bucket=bucket)
    assert stores.unfinished() == []


def test_encryption_and_tags_are_tried_too(minio, tmp_path, stores):
    key = "aod-key:" + base64.b64encode(os.urandom(32)).decode()
    settings = {"encryption": "aws:kms", "kms_key_id": "aod-key", "tags": (("team", "storage"),)}
    with MinioServer(minio.binary, tmp_path / "kms", MINIO_KMS_SECRET_KEY=key) as server:
        able = Stores(server, server.create_bucket(), tmp_path)
        assert findings(able.open(**settings))["right to put"].state == "ok"
    assert "cannot encrypt" in failed(stores.open(**settings)).detail


def test_key_without_the_right_is_told_which(minio, bucket, stores):
    finding = failed(stores.open(restricted_key(minio, bucket, ["s3:GetObject"])))
    assert finding.step == "right to put"
    assert finding.detail.startswith("denied: the key may not PutObject under")
    assert "allow s3:PutObject" in finding.remedy


def test_right_to_begin_but_not_to_put_parts(minio, stores):
    def refuse_parts(request):
        if request.operation == "UploadPart":
            return 403, error_body("AccessDenied")
        return Fate.PASS

    with StoreGate(minio.port, decide_probe=refuse_parts) as gate:
        found = findings(stores.open(endpoint_url=gate.endpoint_url))
    assert found["right to put"].state == "failed"
    assert "conditional writes" not in found
    assert stores.unfinished() == []


def test_store_that_knows_no_conditions(minio, stores):
    def refuse(request):
        return (501, error_body("NotImplemented")) if request.conditional else Fate.PASS

    with StoreGate(minio.port, decide_probe=refuse) as gate:
        found = findings(stores.open(endpoint_url=gate.endpoint_url))
    assert found["conditional writes"].state == "ok"
    assert "NotImplemented" in found["conditional writes"].detail


@pytest.mark.parametrize(
    ("changes", "step", "words"),
    [
        ({"bucket": "no-such-bucket"}, "right to put", "bucket no-such-bucket does not exist"),
        ({"credentials_file": Path("/nonexistent/key")}, "credentials", "No such file"),
        ({"credentials_file": None}, "credentials", "no credentials found"),
        ({"endpoint_url": "http://store.invalid:9000"}, "name", "is not resolved"),
        ({"ca_bundle": Path("/nonexistent/ca")}, "settings", "ca_bundle /nonexistent/ca"),
    ],
    ids=str,
)
def test_what_is_wrong_is_named(stores, changes, step, words):
    finding = failed(stores.open(**changes))
    assert finding.step == step
    assert words in finding.detail
    assert finding.remedy


def test_nobody_listening(stores):
    finding = failed(stores.open(endpoint_url=f"http://127.0.0.1:{free_port()}"))
    assert (finding.step, "nothing listens" in finding.detail) == ("network", True)


def test_wrong_secret_is_told_and_never_shown(minio, stores):
    finding = failed(stores.open((minio.access_key, "TOPSECRET")))
    assert "bad key" in finding.detail
    assert "TOPSECRET" not in f"{finding.detail}{finding.remedy}"


def test_clock_is_compared(minio, stores, monkeypatch):
    real = refusals.wall_clock
    monkeypatch.setattr(refusals, "wall_clock", lambda: real() + 300)
    finding = findings(stores.open())["clock"]
    assert finding.state == "warning"
    assert "5 min ahead" in finding.detail
    monkeypatch.setattr(refusals, "wall_clock", real)
    assert findings(stores.open())["clock"].state == "ok"


def test_certificate_is_shown_or_refused(minio, tmp_path):
    certificates = tmp_path / "tls" / ".minio" / "certs"
    pem = make_certificate(certificates)
    (certificates / "tls.crt").rename(certificates / "public.crt")
    (certificates / "tls.key").rename(certificates / "private.key")
    with MinioServer(minio.binary, tmp_path / "tls", ca_bundle=pem) as server:
        stores = Stores(server, server.create_bucket(), tmp_path)
        found = findings(stores.open(ca_bundle=pem))
        year = datetime.datetime.now(datetime.timezone.utc).year
        assert found["TLS"].state == "ok"
        assert any(str(one) in found["TLS"].detail for one in (year, year + 1))
        finding = failed(stores.open())
        assert (finding.step, "certificate not trusted" in finding.detail) == ("TLS", True)
        with socket.create_connection(("127.0.0.1", server.port)):
            pass


@pytest.fixture
def configured(minio, bucket, stores, tmp_path):
    """A configuration file for the command, with another bucket on demand."""
    spool = new_spool(tmp_path / "spool")

    def write(name=bucket):
        settings = stores.config()
        path = tmp_path / "shipper.yaml"
        path.write_text(
            f"spool: {spool.root}\nprefix: fleet\ndestination:\n  type: s3\n  bucket: {name}\n"
            f"  endpoint_url: {settings.endpoint_url}\n"
            f"  credentials_file: {settings.credentials_file}\n"
        )
        return path

    add_bundle(spool)
    return write


def test_command_says_it_for_people_and_for_machines(configured):
    told = run_shipper("check", "--config", configured())
    assert told.returncode == 0, told.stdout + told.stderr
    assert "ok       right to put" in told.stdout
    assert told.stdout.splitlines()[-1].endswith(": ready")
    document = json.loads(run_shipper("check", "--json", "--config", configured()).stdout)
    assert document["ready"] is True
    steps = [finding["step"] for finding in document["findings"]]
    if os.geteuid() == 0:
        steps.remove("user")
    assert steps == ["configuration", "spool", "receipts", *ALL_STEPS]


def test_command_fails_with_the_remedy(configured):
    told = run_shipper("check", "--config", configured("no-such-bucket"))
    assert told.returncode == 1
    assert "FAILED   right to put" in told.stdout
    assert "remedy" in told.stdout
    assert "NOT READY" in told.stdout
    document = json.loads(
        run_shipper("check", "--json", "--config", configured("no-such-bucket")).stdout
    )
    assert document["ready"] is False


def test_command_without_a_configuration(tmp_path):
    assert run_shipper("check", "--config", tmp_path / "none.yaml").returncode == 2
