"""Where the key for a store comes from, and how a new one is taken, against a real MinIO."""

from __future__ import annotations

import json
import threading
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from shipper.faults import DestinationFault
from tests.s3_support import (
    SHIPPER,
    Stores,
    credentials_file,
    forget_credentials_of_this_machine,
    restricted_key,
)
from tests.shipper_support import add_bundle, delivery_of, new_spool
from tests.store_gate import StoreGate

pytestmark = pytest.mark.minio

ROLE = "aod-shipper"
CONTAINER = "/container"


@pytest.fixture(autouse=True)
def no_credentials_of_this_machine(monkeypatch):
    forget_credentials_of_this_machine(monkeypatch)


@pytest.fixture
def stores(minio, tmp_path):
    return Stores(minio, minio.create_bucket(), tmp_path)


@pytest.fixture
def gate(minio):
    with StoreGate(minio.port) as gate:
        yield gate


@pytest.fixture
def deliveries(tmp_path):
    """As many as a test wants."""
    spool = new_spool(tmp_path / "spool")
    return iter(lambda: delivery_of(add_bundle(spool)), None)


def keys_used(gate: StoreGate) -> list[str]:
    """The access key of each request, repetitions left out."""
    signed = [request.headers["authorization"] for request in gate.requests]
    keys = [text.partition("Credential=")[2].partition("/")[0] for text in signed]
    return [key for place, key in enumerate(keys) if place == 0 or keys[place - 1] != key]


def replace_key(path, key) -> None:
    """As careful administrators do: a new file takes the place of the old one."""
    credentials_file(path.with_suffix(".new"), *key).rename(path)


@pytest.mark.parametrize("source", ["credentials_file", "systemd"])
def test_new_key_is_taken_without_restart_and_without_a_failure(
    minio, stores, gate, deliveries, tmp_path, monkeypatch, source
):
    keys = [restricted_key(minio, stores.bucket, SHIPPER) for _ in range(2)]
    path = credentials_file(tmp_path / "s3-credentials", *keys[0])
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    named = path if source == "credentials_file" else None
    store = stores.open(endpoint_url=gate.endpoint_url, credentials_file=named)
    for _ in range(2):
        store.deliver(next(deliveries))
    replace_key(path, keys[1])
    for _ in range(2):
        store.deliver(next(deliveries))
    assert keys_used(gate) == [keys[0][0], keys[1][0]]
    assert len(gate.probes) == 2, "a new key is no reason to try conditional writes again"


def test_key_that_is_written_into_the_same_file_is_taken(minio, stores, gate, deliveries, tmp_path):
    keys = [restricted_key(minio, stores.bucket, SHIPPER) for _ in range(2)]
    path = credentials_file(tmp_path / "key", *keys[0])
    store = stores.open(endpoint_url=gate.endpoint_url, credentials_file=path)
    store.deliver(next(deliveries))
    credentials_file(path, *keys[1])
    store.deliver(next(deliveries))
    assert keys_used(gate) == [keys[0][0], keys[1][0]]


def test_file_that_went_bad_is_told_and_healed(stores, gate, deliveries, tmp_path, minio):
    path = credentials_file(tmp_path / "key", minio.access_key, minio.secret_key)
    store = stores.open(endpoint_url=gate.endpoint_url, credentials_file=path)
    store.deliver(next(deliveries))
    path.write_text("half a fi")
    with pytest.raises(DestinationFault, match="not in the format"):
        store.deliver(next(deliveries))
    credentials_file(path, minio.access_key, minio.secret_key)
    store.deliver(next(deliveries))


class InstanceMetadata:
    """What a cloud's machine asks for its role's keys; ``hand_out`` is what it is given."""

    def __init__(self) -> None:
        self.hand_out: tuple[str, str, str] = ("", "", "")
        self.expires_in = timedelta(hours=6)
        self.asked = 0
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    def __enter__(self) -> InstanceMetadata:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def endpoint_url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/"

    def _document(self) -> str:
        self.asked += 1
        key, secret, token = self.hand_out
        expiration = datetime.now(timezone.utc) + self.expires_in
        return json.dumps(
            {
                "Code": "Success",
                "Type": "AWS-HMAC",
                "AccessKeyId": key,
                "SecretAccessKey": secret,
                "Token": token,
                "Expiration": expiration.strftime("%Y-%m-%dT%H:%M:%SZ"),
            }
        )

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        metadata = self

        class Handler(BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                self._say("a-token")

            def do_GET(self) -> None:
                if self.path != CONTAINER:
                    assert self.headers["x-aws-ec2-metadata-token"] == "a-token"
                listing = self.path.endswith("/")
                self._say(ROLE if listing else metadata._document())

            def _say(self, text: str) -> None:
                self.send_response(200)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_: object) -> None:
                pass

        return Handler


@pytest.fixture
def instance(monkeypatch):
    monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    with InstanceMetadata() as metadata:
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", metadata.endpoint_url)
        yield metadata


def test_role_of_the_instance_is_enough(minio, stores, gate, deliveries, instance):
    instance.hand_out = restricted_key(minio, stores.bucket, SHIPPER)
    store = stores.open(endpoint_url=gate.endpoint_url, credentials_file=None)
    for _ in range(2):
        store.deliver(next(deliveries))
    assert keys_used(gate) == [instance.hand_out[0]]
    assert instance.asked == 1


def test_key_of_a_role_is_renewed_before_it_expires(
    minio, stores, gate, deliveries, instance, monkeypatch
):
    """A container's role: one of an instance that expires so soon is taken for an outage of the
    metadata service, and used on."""
    monkeypatch.setenv(
        "AWS_CONTAINER_CREDENTIALS_FULL_URI", instance.endpoint_url.rstrip("/") + CONTAINER
    )
    keys = [restricted_key(minio, stores.bucket, SHIPPER) for _ in range(2)]
    instance.expires_in = timedelta(minutes=5)
    store = stores.open(endpoint_url=gate.endpoint_url, credentials_file=None)
    for key in keys:
        instance.hand_out = key
        store.deliver(next(deliveries))
    assert keys_used(gate) == [keys[0][0], keys[1][0]]


def test_role_that_comes_later_needs_no_restart(minio, stores, deliveries, instance, monkeypatch):
    store = stores.open(credentials_file=None)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(DestinationFault, match="no credentials found"):
        store.deliver(next(deliveries))
    monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")
    instance.hand_out = restricted_key(minio, stores.bucket, SHIPPER)
    store.deliver(next(deliveries))
