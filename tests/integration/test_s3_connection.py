"""What is wrong on the way to a store is told apart, over real connections on loopback."""

from __future__ import annotations

import socket
import ssl
import threading
from contextlib import contextmanager

import pytest

from shipper.configuration.schema import S3Destination
from shipper.faults import DestinationFault, NetworkFault
from shipper.s3.bucket import S3Bucket
from shipper.s3.client import make_client
from tests.certificates import make_certificate
from tests.minio_server import MinioServer, free_port
from tests.s3_support import credentials_file, forget_credentials_of_this_machine
from tests.shipper_support import PROBE_KEY, ScriptedStore, add_bundle, delivery_of, new_spool


@pytest.fixture(autouse=True)
def nothing_of_this_machine(monkeypatch):
    forget_credentials_of_this_machine(monkeypatch)
    for name in ("http_proxy", "https_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def deliver(tmp_path):
    """Delivers a bundle to an endpoint; the fault, or None."""
    bundle = add_bundle(new_spool(tmp_path / "spool"))
    key_file = credentials_file(tmp_path / "key", "some-key", "some-secret")

    def attempt(endpoint_url, **changes):
        settings = {"region": "us-east-1", "credentials_file": key_file, **changes}
        store = S3Bucket(S3Destination("evidence", endpoint_url, **settings), PROBE_KEY)
        try:
            store.deliver(delivery_of(bundle))
        except (DestinationFault, NetworkFault) as fault:
            return fault
        return None

    return attempt


@contextmanager
def tls_store(certificate, lowest=ssl.TLSVersion.TLSv1_2, highest=ssl.TLSVersion.TLSv1_3):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version, context.maximum_version = lowest, highest
    context.load_cert_chain(certificate)
    with ScriptedStore(lambda *_: (200, "etag"), context) as server:
        yield server


@contextmanager
def answering(*answers: bytes):
    """A server that reads once, says one of ``answers``, and closes; its URL without scheme."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            for answer in answers:
                connection, _ = listener.accept()
                connection.recv(10_000)
                connection.sendall(answer)
                connection.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        thread.join(10)


def test_variable_of_the_environment_names_no_other_store(monkeypatch, tmp_path):
    key_file = credentials_file(tmp_path / "key", "some-key", "some-secret")
    config = S3Destination("evidence", region="us-east-1", credentials_file=key_file)
    known = make_client(config).meta.endpoint_url
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert make_client(config).meta.endpoint_url == known


def test_unknown_authority_is_refused_before_anything_is_sent(deliver, tmp_path):
    with tls_store(make_certificate(tmp_path)) as server:
        fault = deliver(server.endpoint_url)
    assert isinstance(fault, DestinationFault)
    assert "certificate not trusted" in fault.message
    assert "set ca_bundle" in fault.remedy
    assert server.requests == []


def test_certificate_of_the_ca_bundle_is_trusted(deliver, tmp_path):
    certificate = make_certificate(tmp_path)
    with tls_store(certificate) as server:
        assert deliver(server.endpoint_url, ca_bundle=certificate) is None
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("made", "cause", "cure"),
    [
        ({"name": "DNS:store.example"}, "is for another host than 127.0.0.1:", "host name"),
        ({"name": "IP:127.0.0.2"}, "is for another host than 127.0.0.1:", "host name"),
        ({"start": "200101000000Z", "end": "210101000000Z"}, "has expired", "renew"),
        ({"start": "480101000000Z", "end": "490101000000Z"}, "is not valid yet", "clock"),
    ],
    ids=str,
)
def test_certificate_that_is_known_but_wrong(deliver, tmp_path, made, cause, cure):
    certificate = make_certificate(tmp_path, **made)
    with tls_store(certificate) as server:
        fault = deliver(server.endpoint_url, ca_bundle=certificate)
    assert isinstance(fault, DestinationFault)
    assert cause in fault.message
    assert cure in fault.remedy
    assert server.requests == []


def test_https_where_no_tls_is_spoken(deliver):
    with ScriptedStore(lambda *_: (200, "etag")) as server:
        fault = deliver(server.endpoint_url.replace("http:", "https:"))
    assert isinstance(fault, DestinationFault)
    assert "no TLS is spoken" in fault.message
    assert "http" in fault.remedy


@pytest.mark.minio
def test_real_store_with_a_certificate(minio, deliver, tmp_path):
    certificates = tmp_path / "minio" / ".minio" / "certs"
    pem = make_certificate(certificates)
    (certificates / "tls.crt").rename(certificates / "public.crt")
    (certificates / "tls.key").rename(certificates / "private.key")
    with MinioServer(minio.binary, tmp_path / "minio", ca_bundle=pem) as server:
        bucket = server.create_bucket()
        key = credentials_file(tmp_path / "right", server.access_key, server.secret_key)
        settings = {"credentials_file": key, "ca_bundle": pem}
        assert "does not exist" in deliver(server.endpoint_url, **settings).message
        server.client.create_bucket(Bucket="evidence")
        assert deliver(server.endpoint_url, **settings) is None
        assert bucket != "evidence"
        plain = deliver(server.endpoint_url.replace("https:", "http:"), credentials_file=key)
    assert "TLS" in plain.remedy


def test_tls_version_that_is_too_old(deliver, tmp_path):
    certificate = make_certificate(tmp_path)
    with tls_store(certificate, ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1) as server:
        fault = deliver(server.endpoint_url, ca_bundle=certificate)
    assert isinstance(fault, DestinationFault)
    assert "no TLS connection" in fault.message


def test_connection_closed_in_the_handshake_is_a_network_fault(deliver):
    with answering(b"") as address:
        fault = deliver(f"https://{address}")
    assert isinstance(fault, NetworkFault)


@pytest.mark.parametrize(
    ("endpoint", "cause"),
    [
        (lambda: f"http://127.0.0.1:{free_port()}", "refused: nothing listens at 127.0.0.1:"),
        (lambda: "http://store.invalid:9000", "the name of store.invalid:9000 is not resolved"),
    ],
)
def test_nobody_there_is_a_network_fault(deliver, endpoint, cause):
    fault = deliver(endpoint())
    assert isinstance(fault, NetworkFault)
    assert cause in fault.message


def test_closed_without_an_answer(deliver):
    with answering(b"") as address:
        fault = deliver(f"http://{address}")
    assert isinstance(fault, NetworkFault)
    assert "closed without an answer" in fault.message


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_proxy_that_is_away_is_named_without_its_password(deliver, monkeypatch, scheme):
    proxy = f"http://user:TOPSECRET@127.0.0.1:{free_port()}"
    monkeypatch.setenv(f"{scheme.upper()}_PROXY", proxy)
    fault = deliver(f"{scheme}://store.example:9000")
    assert isinstance(fault, NetworkFault)
    assert "the proxy http://***:***@127.0.0.1" in fault.message
    assert "TOPSECRET" not in f"{fault.message} {fault.remedy}"
    assert f"{scheme.upper()}_PROXY" in fault.remedy


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_proxy_that_wants_a_password(deliver, monkeypatch, scheme):
    refusal = b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n"
    with answering(refusal, refusal) as address:
        monkeypatch.setenv(f"{scheme.upper()}_PROXY", f"http://{address}")
        fault = deliver(f"{scheme}://store.example:9000")
        assert "proxy" in fault.message
        assert "_PROXY" in fault.remedy
        with socket.create_connection(address.split(":")) as connection:
            connection.sendall(b"done")


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_unusable_ca_bundle_is_named(deliver, tmp_path, content):
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
    fault = deliver("https://127.0.0.1:1", ca_bundle=path)
    assert isinstance(fault, DestinationFault)
    assert "ca.pem" in fault.message
    assert "PEM" in fault.remedy
