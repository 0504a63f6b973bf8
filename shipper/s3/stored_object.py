"""Whether an object in the store is, to the byte, what it should be."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from botocore.exceptions import ClientError

from shipper.destinations.delivery import ArchiveReader
from shipper.s3.answers import http_status
from shipper.s3.client import S3Client

_READ_SIZE = 1 << 20


def holds(client: S3Client, bucket: str, key: str, size: int, etag: Callable[[], str]) -> bool:
    """Whether the object has ``size`` and ``etag``, which is asked for last.

    Only an ETag that is an MD5 proves anything: that of an object under SSE-KMS never matches.
    The sha256 in its metadata is what a writer claimed. A key that may only write learns nothing.
    """
    try:
        head = client.head_object(Bucket=bucket, Key=key)
    except ClientError as error:
        if http_status(error) < 500:
            return False
        raise
    return head.get("ContentLength") == size and head.get("ETag", "").strip('"') == etag()


def bytes_etag(content: bytes) -> str:
    """The ETag of ``content``, written in one request."""
    return _md5(content).hexdigest()


def archive_etag(archive: ArchiveReader, part_size: int | None) -> str:
    """The ETag of an archive that was read before, written in one request or in parts."""
    archive.seek(0)
    if part_size is None:
        return _digest(archive, None)[0].hex()
    digests: list[bytes] = []
    while True:
        digest, count = _digest(archive, part_size)
        if not count:
            return f"{_md5(b''.join(digests)).hexdigest()}-{len(digests)}"
        digests.append(digest)


def _digest(archive: ArchiveReader, limit: int | None) -> tuple[bytes, int]:
    """MD5 and number of the next bytes, at most ``limit``."""
    digest, count = _md5(b""), 0
    while limit is None or count < limit:
        data = archive.read(_READ_SIZE if limit is None else min(_READ_SIZE, limit - count))
        if not data:
            break
        digest.update(data)
        count += len(data)
    return digest.digest(), count


def _md5(content: bytes) -> hashlib._Hash:
    return hashlib.md5(content, usedforsecurity=False)
