"""A bucket of any S3-compatible store, through boto3."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from agent import __version__
from shipper.config_schema import S3Destination
from shipper.delivery import Delivery
from shipper.document import Document
from shipper.faults import DestinationFault
from shipper.s3_credentials import find_credentials
from shipper.s3_faults import as_fault

# Larger archives go in parts, so that a lost connection costs one part's time and memory.
PART_SIZE = 16 << 20

_IN_PARTS = TransferConfig(
    multipart_threshold=PART_SIZE,
    multipart_chunksize=PART_SIZE,
    max_concurrency=1,
    use_threads=False,
)

# KeyError: s3transfer misses the upload id in the answer of a server that is no S3 store.
_STORE_ERRORS = (BotoCoreError, ClientError, ResponseParserError, KeyError, ValueError)


class _Client(Protocol):
    """What is used of boto3's S3 client, which has no types of its own."""

    def put_object(self, **arguments: object) -> Mapping[str, object]:
        """One object in one request."""

    def upload_fileobj(self, **arguments: object) -> None:
        """One object in parts."""


class S3Bucket:
    """Writes with ``s3:PutObject`` alone: nothing is listed, asked for or read back.

    The client is made at the first delivery and again after every refusal, so that a new
    credentials file is picked up without a restart.
    """

    def __init__(self, config: S3Destination) -> None:
        self._config = config
        self._client: _Client | None = None

    @property
    def description(self) -> str:
        """The store in words, without secrets (a URL may carry some before its host)."""
        if self._config.endpoint_url is None:
            return f"s3://{self._config.bucket}"
        address = urlsplit(self._config.endpoint_url).netloc.rpartition("@")[2]
        return f"s3://{self._config.bucket} at {address}"

    def deliver(self, delivery: Delivery) -> str:
        """See `shipper.destination.Destination`."""
        with self._open_client() as client:
            self._put_archive(client, delivery)
            self._put_document(client, delivery.keys.manifest, delivery.manifest)
        return self.description

    def put_document(self, document: Document) -> None:
        """See `shipper.destination.Destination`."""
        with self._open_client() as client:
            self._put_document(client, document.key, document.content)

    def abandon(self, note: Path) -> None:
        """See `shipper.destination.Destination`."""

    @contextlib.contextmanager
    def _open_client(self) -> Iterator[_Client]:
        try:
            self._client = self._client or _make_client(self._config)
            yield self._client
        except _STORE_ERRORS as error:
            fault = as_fault(error, self.description)
            if isinstance(fault, DestinationFault):
                self._client = None
            raise fault from error

    def _put_document(self, client: _Client, key: str, document: bytes) -> None:
        self._put(client, key, document, "application/json", {})

    def _put_archive(self, client: _Client, delivery: Delivery) -> None:
        key, kind, metadata = delivery.keys.archive, "application/zstd", {"sha256": delivery.sha256}
        with delivery.open_archive() as archive:
            if delivery.size <= PART_SIZE:
                self._put(client, key, archive.read(), kind, metadata)
                return
            client.upload_fileobj(
                Fileobj=archive,
                Bucket=self._config.bucket,
                Key=key,
                ExtraArgs={"ContentType": kind, "Metadata": metadata},
                Config=_IN_PARTS,
            )

    def _put(
        self, client: _Client, key: str, body: bytes, kind: str, metadata: dict[str, str]
    ) -> None:
        answer = client.put_object(
            Bucket=self._config.bucket, Key=key, Body=body, ContentType=kind, Metadata=metadata
        )
        if not answer.get("ETag"):  # a login page of a captive portal also says 200
            raise DestinationFault(
                f"{self.description}: accepted an object without naming its ETag",
                "check endpoint_url: this is no S3 store",
            )


def _make_client(config: S3Destination) -> _Client:
    credentials = find_credentials(config)
    keys = {}
    if credentials is not None:
        keys = {
            "aws_access_key_id": credentials.access_key,
            "aws_secret_access_key": credentials.secret_key,
            "aws_session_token": credentials.token,
        }
    client: _Client = boto3.session.Session().client(
        "s3",
        region_name=config.region,
        endpoint_url=config.endpoint_url,
        verify=_trusted(config.ca_bundle),
        config=_client_config(config),
        **keys,
    )
    return client


def _client_config(config: S3Destination) -> Config:
    return Config(
        connect_timeout=config.connect_timeout_sec,
        read_timeout=config.read_timeout_sec,
        # Retries are the shipper's: botocore's own would multiply with them.
        retries={"mode": "standard", "total_max_attempts": 1},
        # The newer checksums break older stores. The signature covers the body's sha256 instead,
        # which every store checks.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={"addressing_style": config.addressing_style, "payload_signing_enabled": True},
        user_agent_extra=f"aod-shipper/{__version__}",
    )


def _trusted(ca_bundle: Path | None) -> str | bool:
    """What botocore verifies TLS with; it would name a bad CA file a network error."""
    if ca_bundle is None:
        return True
    try:
        ssl.create_default_context(cafile=str(ca_bundle))
    except OSError as error:  # ssl.SSLError is one
        raise DestinationFault(
            f"ca_bundle {ca_bundle}: {error.strerror or error}", "name a readable PEM file"
        ) from error
    return str(ca_bundle)
