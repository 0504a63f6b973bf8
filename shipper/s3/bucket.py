"""A bucket of any S3-compatible store, through boto3."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from botocore.exceptions import ClientError

from agent.service.stop_signal import StopSignal
from shipper.configuration.schema import S3Destination
from shipper.destinations.delivery import ArchiveReader, Delivery
from shipper.destinations.document import JSON_TYPE, Document
from shipper.destinations.finding import Finding
from shipper.destinations.pace import Pace
from shipper.faults import BundleFault, DestinationFault, Fault, NetworkFault
from shipper.s3.answers import STORE_ERRORS, error_code, named
from shipper.s3.archive_part import ArchivePart
from shipper.s3.client import Answer, ClientKeeper, S3Client
from shipper.s3.conditional_writes import ConditionalWrites
from shipper.s3.faults import as_fault
from shipper.s3.multipart import PART_SIZE, MultipartUpload
from shipper.s3.preflight import S3Preflight
from shipper.s3.stored_object import archive_etag, bytes_etag, holds
from shipper.s3.upload_note import read_note, remove_note
from shipper.s3.words import store_words

_ARCHIVE_TYPE = "application/zstd"

_log = logging.getLogger("aod-shipper")


class S3Bucket:
    """Writes with ``s3:PutObject`` alone: nothing is listed, and nothing that is read is needed.

    ``probe_key`` is the key of this host's heartbeat, on which is tried whether the store can
    refuse to overwrite. ``pace`` holds back the bytes of archives; once ``stop`` is set, no
    further part of one is sent.
    """

    def __init__(
        self,
        config: S3Destination,
        probe_key: str,
        pace: Pace | None = None,
        stop: StopSignal | None = None,
    ) -> None:
        self._config = config
        self._bucket = config.bucket
        self._probe_key = probe_key
        self._pace = pace
        self._stop = stop
        self._attributes = object_attributes(config)
        self._words = store_words(config, probe_key)
        self._clients = ClientKeeper(config)
        self._conditional = ConditionalWrites(
            {"Bucket": config.bucket, "Key": probe_key, **self._attributes}
        )

    @property
    def description(self) -> str:
        """The store in words, without secrets."""
        return self._words.description

    def deliver(self, delivery: Delivery) -> str:
        """See `Destination`."""
        try:
            with self._open_client() as client:
                with delivery.open_archive() as archive:
                    self._put_archive(client, delivery, archive)
                self._put_once(client, delivery.keys.manifest, delivery.manifest)
                return self.description
        except BundleFault:
            # The verdict on the bundle stands, whatever becomes of what was uploaded.
            with contextlib.suppress(Fault):
                self.abandon(delivery.upload_note)
            remove_note(delivery.upload_note)
            raise

    def put_document(self, document: Document) -> None:
        """See `Destination`."""
        with self._open_client() as client:
            if document.kind == "heartbeat":
                named(self._put(client, document.key, document.content, {}), "ETag")
            else:
                self._put_once(client, document.key, document.content)

    def abandon(self, note: Path) -> None:
        """See `Destination`. A key that may not abort leaves it to the
        bucket's lifecycle rule."""
        upload = read_note(note)
        if upload is None or (upload.store, upload.bucket) != (self.description, self._bucket):
            return
        with self._open_client() as client:
            try:
                client.abort_multipart_upload(**upload.place())
            except ClientError as error:
                if error_code(error) == "AccessDenied":
                    _log.info("an upload of %s is left to the bucket's lifecycle rule", upload.key)
                elif error_code(error) != "NoSuchUpload":
                    raise

    def check(self) -> Iterator[Finding]:
        """See `shipper.destinations.finding.Preflight`."""
        return S3Preflight(self._config, self._probe_key, self._attributes, self._words).check()

    @contextlib.contextmanager
    def _open_client(self) -> Iterator[S3Client]:
        client = None
        try:
            client = self._clients.get()
            yield client
        except STORE_ERRORS as error:
            fault = as_fault(error, self._words)
            if client is not None and isinstance(fault, DestinationFault):
                self._clients.drop(client)
                self._conditional.forget()
            raise fault from error

    def _put_archive(self, client: S3Client, delivery: Delivery, archive: ArchiveReader) -> None:
        attributes = {
            **self._attributes,
            "ContentType": _ARCHIVE_TYPE,
            "Metadata": {"sha256": delivery.sha256},
        }
        if delivery.size > PART_SIZE:
            MultipartUpload(
                client,
                self.description,
                self._bucket,
                attributes,
                self._conditional,
                delivery,
                archive,
                self._pace,
                self._interrupt,
            ).run()
            return
        key, size = delivery.keys.archive, delivery.size

        def send(condition: Mapping[str, str]) -> Answer:
            archive.start_over()  # also what is sent a second time is proven
            body = ArchivePart(archive, 0, size, self._pace)
            return client.put_object(
                Bucket=self._bucket, Key=key, **attributes, Body=body, **condition
            )

        def is_same() -> bool:
            return holds(client, self._bucket, key, size, lambda: archive_etag(archive, None))

        self._conditional.write(client, send, is_same)

    def _interrupt(self) -> None:
        if self._stop is not None and self._stop.is_set():
            raise NetworkFault("the shipper was told to stop", "the next start goes on from here")

    def _put_once(self, client: S3Client, key: str, document: bytes) -> None:
        self._conditional.write(
            client,
            lambda condition: self._put(client, key, document, condition),
            lambda: holds(client, self._bucket, key, len(document), lambda: bytes_etag(document)),
        )

    def _put(
        self, client: S3Client, key: str, document: bytes, condition: Mapping[str, str]
    ) -> Answer:
        place = {"Bucket": self._bucket, "Key": key, "ContentType": JSON_TYPE}
        return client.put_object(**place, **self._attributes, Body=document, **condition)


def object_attributes(config: S3Destination) -> dict[str, Any]:
    """The arguments of PutObject and CreateMultipartUpload that the configuration decides."""
    attributes: dict[str, Any] = {}
    if config.encryption is not None:
        attributes["ServerSideEncryption"] = config.encryption
    if config.kms_key_id is not None:
        attributes["SSEKMSKeyId"] = config.kms_key_id
    if config.tags:
        attributes["Tagging"] = urlencode(config.tags)
    return attributes
