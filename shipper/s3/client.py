"""The client of an S3 store: one for all threads, made anew when its key is another one."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import boto3
import botocore.session
from botocore.awsrequest import AWSResponse
from botocore.config import Config
from botocore.loaders import create_loader

from agent import __version__
from shipper.configuration.schema import S3Destination
from shipper.faults import DestinationFault
from shipper.s3.credentials import credentials_stamp, find_credentials

# More than `limits.concurrency` can be; a pool that is too small closes connections after use.
_CONNECTIONS = 32
_FIRST_REFUSAL = 300

# It keeps what it read of botocore's service descriptions: a new client costs 3 ms and no
# memory, without it 100 ms and, for a while, 13 MB.
_LOADER = create_loader()

# Where Debian keeps them; other systems tell OpenSSL.
_SYSTEM_CERTIFICATES = ("/etc/ssl/certs/ca-certificates.crt",)

Answer = Mapping[str, Any]


class _ClientMeta(Protocol):
    endpoint_url: str


class S3Client(Protocol):
    """What is used of botocore's S3 client, which has no types of its own."""

    @property
    def meta(self) -> _ClientMeta:
        """What it was made for."""

    def put_object(self, **arguments: object) -> Answer:
        """One object in one request."""

    def head_object(self, **arguments: object) -> Answer:
        """What the store tells of an object."""

    def create_multipart_upload(self, **arguments: object) -> Answer:
        """Begin an object that comes in parts."""

    def upload_part(self, **arguments: object) -> Answer:
        """One part."""

    def complete_multipart_upload(self, **arguments: object) -> Answer:
        """Make the parts an object."""

    def abort_multipart_upload(self, **arguments: object) -> Answer:
        """Forget the parts."""


class ClientKeeper:
    """Makes the client when it is needed first, when the credentials file was written anew, and
    after `drop`. Many threads.

    Temporary credentials that botocore fetches itself (instance role, web identity) it also
    renews itself, ten minutes and more before they expire.
    """

    def __init__(self, config: S3Destination) -> None:
        self._config = config
        self._lock = threading.Lock()
        self._client: S3Client | None = None
        self._stamp: object = None

    def get(self) -> S3Client:
        """The client to use for the next bundle. Raises DestinationFault."""
        with self._lock:
            stamp = credentials_stamp(self._config)
            if self._client is None or stamp != self._stamp:
                self._client, self._stamp = make_client(self._config), stamp
            return self._client

    def drop(self, client: S3Client) -> None:
        """It was refused: the next one reads credentials and certificates again."""
        with self._lock:
            if self._client is client:
                self._client = None


def make_client(config: S3Destination) -> S3Client:
    session = botocore.session.Session()
    session.register_component("data_loader", _LOADER)
    credentials = find_credentials(config)
    keys = {}
    if credentials is not None:
        keys = {
            "aws_access_key_id": credentials.access_key,
            "aws_secret_access_key": credentials.secret_key,
            "aws_session_token": credentials.token,
        }
    client = boto3.session.Session(botocore_session=session).client(
        "s3",
        region_name=config.region,
        endpoint_url=config.endpoint_url,
        verify=trusted_certificates(config.ca_bundle),
        config=_client_config(config),
        **keys,
    )
    events = client.meta.events
    events.register("after-call.s3", _refuse_web_page)
    if config.encryption is not None:
        # Not of uploads in parts, whose answers tell it with some stores only. The first request
        # of a client, which tries out conditions, is a PutObject.
        events.register("after-call.s3.PutObject", partial(_refuse_clear, config.encryption))
    made: S3Client = client
    return made


def _refuse_web_page(http_response: AWSResponse, **_: object) -> None:
    """A captive portal says 200 to everything, and its page can even have an ETag."""
    status, kind = http_response.status_code, http_response.headers.get("content-type", "")
    if status < _FIRST_REFUSAL and "html" in kind:
        raise DestinationFault(
            f"a web page (HTTP {status}) instead of the store's answer",
            "check endpoint_url, and whether a proxy or a captive portal stands in between",
        )


def _refuse_clear(encryption: str, http_response: AWSResponse, parsed: Answer, **_: object) -> None:
    """A store may take an object and store it in clear without a word (docs/stores.md)."""
    kept = parsed.get("ServerSideEncryption")
    if http_response.status_code < _FIRST_REFUSAL and kept != encryption:
        raise DestinationFault(
            f"the store does not encrypt: asked for {encryption}, it kept {kept or 'it in clear'}",
            "set up the store's encryption, or take 'encryption' out of the configuration",
        )


def _client_config(config: S3Destination) -> Config:
    return Config(
        connect_timeout=config.connect_timeout_sec,
        read_timeout=config.read_timeout_sec,
        # The receipts and faults name the store of the configuration: no variable means another.
        ignore_configured_endpoint_urls=True,
        tcp_keepalive=True,
        max_pool_connections=_CONNECTIONS,
        # Retries are the shipper's: botocore's own would multiply with them.
        retries={"mode": "standard", "total_max_attempts": 1},
        # The newer checksums break older stores. The signature covers the body's sha256 instead,
        # which every store checks.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={"addressing_style": config.addressing_style, "payload_signing_enabled": True},
        user_agent_extra=f"aod-shipper/{__version__}",
    )


def trusted_certificates(ca_bundle: Path | None) -> str | bool:
    """The file that botocore verifies TLS with: the system's certificates where no other is
    named, and its own (True) where the system has none. Raises DestinationFault."""
    if ca_bundle is None:  # botocore would look at its own alone, and name a bad file no fault
        places = (ssl.get_default_verify_paths().cafile, *_SYSTEM_CERTIFICATES)
        return next((place for place in places if place and Path(place).is_file()), True)
    try:
        ssl.create_default_context(cafile=str(ca_bundle))
    except OSError as error:  # ssl.SSLError is one
        raise DestinationFault(
            f"ca_bundle {ca_bundle}: {error.strerror or error}", "name a readable PEM file"
        ) from error
    return str(ca_bundle)
