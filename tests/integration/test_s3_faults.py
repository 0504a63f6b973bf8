"""How answers and silences of a store are sorted, over real connections on loopback."""

import os
import socket

import pytest

from shipper.configuration.schema import S3Destination
from shipper.faults import DestinationFault, NetworkFault
from shipper.s3 import client
from shipper.s3.bucket import S3Bucket
from shipper.s3.multipart import PART_SIZE
from tests.shipper_support import (
    PROBE_KEY,
    ScriptedStore,
    add_bundle,
    delivery_of,
    make_shipper,
    new_spool,
    write_key,
)

KEY = ("aws_access_key_id = some-key", "aws_secret_access_key = some-secret")


@pytest.fixture
def spool(tmp_path):
    return new_spool(tmp_path / "spool")


@pytest.fixture
def connect(tmp_path):
    """A function that makes the destination for an endpoint."""
    key_file = write_key(tmp_path / "key", *KEY)

    def make(endpoint_url, **changes):
        settings = {
            "endpoint_url": endpoint_url,
            "region": "us-east-1",
            "credentials_file": key_file,
        }
        return S3Bucket(S3Destination("evidence", **{**settings, **changes}), PROBE_KEY)

    return make


DESTINATION = {
    "AccessDenied": (403, "s3:PutObject"),
    "NoSuchBucket": (404, "create the bucket"),
    "InvalidAccessKeyId": (403, "key"),
    "SignatureDoesNotMatch": (403, "key"),
    "RequestTimeTooSkewed": (403, "clock"),
    "ExpiredToken": (400, "renew"),
    "XMinioStorageFull": (507, "room"),
    "Whatever": (507, "room"),
    "AuthorizationHeaderMalformed": (400, "region"),
    "NotImplemented": (501, "documentation"),
    "EntityTooLarge": (400, "limit"),
    "": (403, "s3:PutObject"),
}
NETWORK = {
    "SlowDown": 503,
    "InternalError": 500,
    "ServiceUnavailable": 503,
    "": 502,
    "RequestTimeout": 400,
    "OperationAborted": 409,
    "ConditionalRequestConflict": 409,
    "BadDigest": 400,
    "TooManyRequests": 429,
}


@pytest.mark.parametrize("code", DESTINATION)
def test_lasting_refusal_is_asked_once_and_names_the_remedy(spool, connect, code):
    status, remedy = DESTINATION[code]
    add_bundle(spool)
    with ScriptedStore(lambda *_: (status, code)) as server:
        summary = make_shipper(spool, connect(server.endpoint_url)).ship_pending()
    assert isinstance(summary.fault, DestinationFault)
    assert code in summary.fault.message
    assert remedy in summary.fault.remedy
    # 501 may be meant for the condition alone: one more request without it tells.
    assert len(server.requests) == (2 if status == 501 else 1)


@pytest.mark.parametrize("code", NETWORK)
def test_passing_trouble_is_tried_as_often_as_configured(spool, connect, code):
    add_bundle(spool)
    with ScriptedStore(lambda *_: (NETWORK[code], code)) as server:
        summary = make_shipper(spool, connect(server.endpoint_url)).ship_pending()
    assert isinstance(summary.fault, NetworkFault)
    assert len(server.requests) == 3, "botocore must not retry on top of the shipper"
    assert summary.left == 1


def test_manifest_comes_after_the_archive(spool, connect):
    delivery = delivery_of(add_bundle(spool))
    with ScriptedStore(lambda *_: (200, "etag")) as server:
        connect(server.endpoint_url).deliver(delivery)
    assert server.requests == [
        ("PUT", f"/evidence/{delivery.keys.archive}"),
        ("PUT", f"/evidence/{delivery.keys.manifest}"),
    ]


def test_no_manifest_for_an_archive_that_was_refused(spool, connect):
    bundle = add_bundle(spool)
    with ScriptedStore(lambda number, *_: (500 if number < 4 else 200, "x")) as server:
        shipper = make_shipper(spool, connect(server.endpoint_url))
        assert isinstance(shipper.ship_pending().fault, NetworkFault)
        assert all(path.endswith(".tar.zst") for _, path in server.requests)
        assert shipper.ship_pending().complete
    assert spool.path(bundle.id, ".shipped").exists()


def test_no_receipt_without_a_manifest(spool, connect):
    bundle = add_bundle(spool)
    with ScriptedStore(lambda _, __, path: (403 if ".json" in path else 200, "x")) as server:
        summary = make_shipper(spool, connect(server.endpoint_url)).ship_pending()
    assert isinstance(summary.fault, DestinationFault)
    assert not spool.path(bundle.id, ".shipped").exists()


def test_refused_upload_in_parts_is_given_up_cleanly(spool, connect):
    delivery = delivery_of(add_bundle(spool, os.urandom(PART_SIZE + 1)))
    with (
        ScriptedStore(lambda *_: (403, "AccessDenied")) as server,
        pytest.raises(DestinationFault, match="AccessDenied"),
    ):
        connect(server.endpoint_url).deliver(delivery)


@pytest.mark.parametrize("size", [1000, PART_SIZE + 1])
def test_web_server_that_says_yes_to_everything_is_no_store(spool, connect, size):
    add_bundle(spool, os.urandom(size))
    with ScriptedStore(lambda *_: (200, "")) as server:
        summary = make_shipper(spool, connect(server.endpoint_url)).ship_pending()
    assert "endpoint_url" in summary.fault.remedy
    assert spool.counts().pending == 1


def test_hostile_answer_cannot_forge_log_lines(spool, connect):
    with (
        ScriptedStore(lambda *_: (400, "Evil&#10;&#27;[31m" + "x" * 10_000)) as server,
        pytest.raises(DestinationFault) as caught,
    ):
        connect(server.endpoint_url).deliver(delivery_of(add_bundle(spool)))
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 500


@pytest.mark.parametrize("size", [100, 12 << 20], ids=["waits for the answer", "cannot send"])
def test_silent_server_is_given_up_after_the_timeout(spool, connect, size):
    delivery = delivery_of(add_bundle(spool, os.urandom(size)))
    with socket.create_server(("127.0.0.1", 0)) as listener:  # accepts, reads and says nothing
        endpoint = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(NetworkFault):
            connect(endpoint, read_timeout_sec=0.5).deliver(delivery)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "No such file"),
        ("", "no key under"),
        ("[other]\naws_access_key_id = TOPSECRET\n", "no key under"),
        ("[default]\naws_access_key_id = TOPSECRET\n", "format"),
        ("TOPSECRET\n[default\n", "format"),
        ("[default]\naws_access_key_id =\naws_secret_access_key = TOPSECRET\n", "no key under"),
    ],
)
def test_unusable_credentials_file_is_named_but_not_quoted(
    spool, connect, tmp_path, content, words
):
    path = tmp_path / "credentials"
    if content is not None:
        path.write_text(content)
        path.chmod(0o600)
    destination = connect("http://127.0.0.1:1", credentials_file=path)
    with pytest.raises(DestinationFault, match=words) as caught:
        destination.deliver(delivery_of(add_bundle(spool)))
    assert str(path) in caught.value.message
    assert "TOPSECRET" not in f"{caught.value.message} {caught.value.remedy}"


@pytest.mark.parametrize(
    "token", ["TOPSECRET1\n  TOPSECRET2", "TOPSECRET1 TOPSECRET2", "TOPSECRET\x7f"]
)
@pytest.mark.parametrize("given", ["credentials_file", "systemd"])
def test_token_that_a_request_would_choke_on_is_refused_and_not_quoted(
    spool, connect, tmp_path, monkeypatch, token, given
):
    path = write_key(tmp_path / "s3-credentials", *KEY, f"aws_session_token = {token}")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    destination = connect(
        "http://127.0.0.1:1", credentials_file=path if given == "credentials_file" else None
    )
    with pytest.raises(DestinationFault, match="is not in the format") as caught:
        destination.deliver(delivery_of(add_bundle(spool)))
    assert "TOPSECRET" not in f"{caught.value.message} {caught.value.remedy}"


@pytest.fixture
def no_other_credentials(monkeypatch):
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")


@pytest.mark.usefixtures("no_other_credentials")
def test_wrapped_token_that_boto_finds_by_itself_is_not_quoted(spool, connect, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "some-key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "some-secret")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "TOPSECRET1\nTOPSECRET2")
    with (
        ScriptedStore(lambda *_: (200, "etag")) as server,
        pytest.raises(NetworkFault) as caught,
    ):
        connect(server.endpoint_url, credentials_file=None).deliver(delivery_of(add_bundle(spool)))
    assert "TOPSECRET" not in f"{caught.value.message} {caught.value.remedy}"
    assert "white space" in caught.value.remedy


@pytest.mark.parametrize("mode", [0o644, 0o660, 0o602, 0o604])
def test_credentials_file_that_is_open_to_others_is_refused(spool, connect, tmp_path, mode):
    path = write_key(tmp_path / "credentials", *KEY)
    path.chmod(mode)
    with ScriptedStore(lambda *_: (200, "etag")) as server:
        destination = connect(server.endpoint_url, credentials_file=path)
        with pytest.raises(DestinationFault, match=f"{mode:04o}") as caught:
            destination.deliver(delivery_of(add_bundle(spool)))
        assert caught.value.remedy == f"chmod 0640 {path}"
        assert server.requests == []
        path.chmod(0o640)
        destination.deliver(delivery_of(add_bundle(spool)))


def test_new_client_is_made_after_a_refusal_only(spool, connect, monkeypatch):
    add_bundle(spool)
    made = []

    def count(config):
        made.append(config)
        return make_client(config)

    make_client = client.make_client
    monkeypatch.setattr(client, "make_client", count)
    answers = [(503, "SlowDown"), (500, "x"), (403, "AccessDenied"), (200, "x"), (200, "x")]
    with ScriptedStore(lambda number, *_: answers[number - 1]) as server:
        shipper = make_shipper(spool, connect(server.endpoint_url))
        assert isinstance(shipper.ship_pending().fault, DestinationFault)
        assert len(made) == 1
        assert shipper.ship_pending().complete
    assert len(made) == 2


@pytest.mark.usefixtures("no_other_credentials")
def test_no_credentials_anywhere_is_a_destination_fault(spool, connect):
    with pytest.raises(DestinationFault, match="no credentials") as caught:
        connect("http://127.0.0.1:1", credentials_file=None).deliver(delivery_of(add_bundle(spool)))
    assert "`aod-shipper once` outside the unit needs" in caught.value.remedy


def test_description_tells_no_password(connect):
    description = connect("https://user:TOPSECRET@store.example:9000/x").description
    assert description == "s3://evidence at store.example:9000"
