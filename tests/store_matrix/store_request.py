"""What goes over the wire: a request to an S3 store, named by its purpose, and an answer."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qs, unquote, urlsplit

from agent.storage.spool import ARCHIVE
from agent.storage.ulid import is_ulid

BEGIN, PART, COMPLETE, ABORT = "begin upload", "PUT part", "complete upload", "abort upload"
MANIFEST, TOMBSTONE, HEARTBEAT = ".json", ".evicted.json", "heartbeat.json"

Headers = tuple[tuple[str, str], ...]

_UPLOAD_ID = re.compile(rb"<UploadId>([^<]+)</UploadId>")


@dataclass(frozen=True)
class StoreRequest:
    """``target`` is path and query, in the path style: ``/bucket/key?query``."""

    method: str
    target: str
    headers: Headers
    body: bytes

    @property
    def bucket(self) -> str:
        """The first part of the path."""
        return self._path[0]

    @property
    def key(self) -> str:
        """The object; empty for a request to the bucket."""
        return self._path[1]

    @property
    def upload_id(self) -> str | None:
        """Of the upload in parts that it belongs to."""
        return self._query.get("uploadId", [None])[0]

    @property
    def kind(self) -> str:
        """What it does, the same for every bundle."""
        if "uploads" in self._query:
            return BEGIN
        if "partNumber" in self._query:
            return PART
        if self.upload_id:
            return {"POST": COMPLETE, "DELETE": ABORT}[self.method]
        return f"{self.method} {kind_of_key(self.key)}"

    @property
    def label(self) -> str:
        """What it does and to which bundle: the same in every run, whatever the order is."""
        part = self._query.get("partNumber", [""])[0]
        name = self.key.rpartition("/")[2]
        return " ".join(filter(None, (self.kind, part, name[:26] if is_ulid(name[:26]) else name)))

    @property
    def _path(self) -> tuple[str, str]:
        bucket, _, key = unquote(urlsplit(self.target).path).lstrip("/").partition("/")
        return bucket, key

    @property
    def _query(self) -> dict[str, list[str]]:
        return parse_qs(urlsplit(self.target).query, keep_blank_values=True)


@dataclass(frozen=True)
class Answer:
    """``headers`` without those that say how long the body is."""

    status: int
    headers: Headers = ()
    body: bytes = b""

    @property
    def begun_upload(self) -> str | None:
        """The id of the upload in parts that it tells of."""
        match = _UPLOAD_ID.search(self.body)
        return (
            match[1].decode() if match and b"<InitiateMultipartUploadResult" in self.body else None
        )


def kind_of_key(key: str) -> str:
    """What lies under a key."""
    ends = {
        ARCHIVE: "archive",
        TOMBSTONE: "tombstone",
        HEARTBEAT: "heartbeat",
        MANIFEST: "manifest",
    }
    return next((kind for end, kind in ends.items() if key.endswith(end)), "something else")
