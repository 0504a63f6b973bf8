"""Reads a bucket, which the shipper's own key need not be allowed to."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from botocore.exceptions import ClientError, IncompleteReadError
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from shipper.configuration.schema import RetryConfig, S3Destination
from shipper.destinations.object_key import heartbeat_key
from shipper.destinations.store_reader import (
    DOCUMENT_LIMIT,
    ReadDeniedFault,
    StoredDocument,
    StoredObject,
)
from shipper.faults import Fault, NetworkFault
from shipper.s3.answers import STORE_ERRORS
from shipper.s3.client import ClientKeeper
from shipper.s3.faults import as_fault
from shipper.s3.words import store_words

Result = TypeVar("Result")

_READ_SIZE = 1 << 20
_FORBIDDEN = 403
_NOT_FOUND = 404


class _Client(Protocol):
    """What is used of the S3 client, which has no types of its own."""

    def head_object(self, **arguments: object) -> dict[str, Any]:
        """What the store tells of an object."""

    def get_object(self, **arguments: object) -> dict[str, Any]:
        """An object."""

    def list_objects_v2(self, **arguments: object) -> dict[str, Any]:
        """A page of keys."""


class S3Reader:
    """Needs s3:GetObject and s3:ListBucket; see `shipper.destinations.store_reader.StoreReader`.

    Without the second right a store does not tell what is missing from what may not be read.
    """

    def __init__(self, config: S3Destination, description: str, retry: RetryConfig) -> None:
        self._config = config
        self._description = description
        self._words = store_words(config, heartbeat_key("", ""))
        self._clients = ClientKeeper(config)
        self._retrying = Retrying(
            retry=retry_if_exception_type(NetworkFault),
            stop=stop_after_attempt(retry.attempts),
            wait=wait_random_exponential(retry.initial_wait_sec, retry.max_wait_sec),
            reraise=True,
        )

    def look(self, key: str) -> StoredObject | None:
        """By HeadObject: the sha256 is that of the metadata."""

        def head(client: _Client) -> StoredObject:
            answer = client.head_object(Bucket=self._config.bucket, Key=key)
            return StoredObject(answer["ContentLength"], answer["Metadata"].get("sha256"))

        return self._find(head)

    def digest(self, key: str) -> StoredObject | None:
        """See `shipper.destinations.store_reader.StoreReader`."""

        def read_all(client: _Client) -> StoredObject:
            digest, size = hashlib.sha256(), 0
            with client.get_object(Bucket=self._config.bucket, Key=key)["Body"] as body:
                while data := body.read(_READ_SIZE):
                    digest.update(data)
                    size += len(data)
            return StoredObject(size, digest.hexdigest())

        return self._find(read_all)

    def read(self, key: str) -> StoredDocument | None:
        """See `shipper.destinations.store_reader.StoreReader`."""

        def get(client: _Client) -> StoredDocument:
            answer = client.get_object(Bucket=self._config.bucket, Key=key)
            with answer["Body"] as body:
                content: bytes = body.read(DOCUMENT_LIMIT + 1)
            return StoredDocument(content, answer["LastModified"].timestamp())

        return self._find(get)

    def folders(self, prefix: str) -> list[str]:
        """By ListObjectsV2, in as many pages as it takes."""

        def list_all(client: _Client) -> list[str]:
            found: list[str] = []
            page: dict[str, Any] = {"NextContinuationToken": None}
            while "NextContinuationToken" in page:
                token = page["NextContinuationToken"]
                page = client.list_objects_v2(
                    Bucket=self._config.bucket,
                    Prefix=prefix,
                    Delimiter="/",
                    **({"ContinuationToken": token} if token else {}),
                )
                found += [one["Prefix"] for one in page.get("CommonPrefixes", [])]
            return sorted(one[len(prefix) : -1] for one in found)

        return self._patiently(list_all)

    def _find(self, ask: Callable[[_Client], Result]) -> Result | None:
        """None when the store says that there is no such object."""
        try:
            return self._patiently(ask)
        except _NoObjectError:
            return None

    def _patiently(self, ask: Callable[[_Client], Result]) -> Result:
        result: Result = self._retrying(self._once, ask)
        return result

    def _once(self, ask: Callable[[_Client], Result]) -> Result:
        try:
            client: Any = self._clients.get()  # the same, for other operations
            return ask(client)
        except STORE_ERRORS as error:
            if _is_missing(error):
                raise _NoObjectError from error
            raise self._fault(error) from error

    def _fault(self, error: Exception) -> Fault:
        if _status(error) == _FORBIDDEN:
            bucket = self._config.bucket
            return ReadDeniedFault(
                f"{self._description}: this key may not read (HTTP 403)",
                f"allow s3:GetObject on {bucket}/* and s3:ListBucket on {bucket} to a key of your "
                "own, and name its file in a copy of the configuration (credentials_file, "
                "--config): the shipper's own key is better off without",
            )
        if isinstance(error, IncompleteReadError):
            return NetworkFault(f"{self._description}: an answer was cut off", "try again")
        return as_fault(error, self._words)


class _NoObjectError(Exception):
    """There is no such object."""


def _is_missing(error: Exception) -> bool:
    """A bucket that is missing is no missing object; HeadObject tells no code."""
    code = error.response.get("Error", {}).get("Code") if isinstance(error, ClientError) else ""
    return _status(error) == _NOT_FOUND and code != "NoSuchBucket"


def _status(error: Exception) -> int:
    if not isinstance(error, ClientError):
        return 0
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") or 0)
