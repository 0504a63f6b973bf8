"""What must hold once the shipper has done its work, whatever was done to it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass

from agent.storage.spool import ARCHIVE
from shipper.faults import BundleFault
from shipper.shipping.outcome import Outcome
from tests.cargo import GOOD
from tests.minio_server import MinioServer


@dataclass(frozen=True)
class Upload:
    """In parts, and not complete."""

    key: str
    id: str


def broken_store(server: MinioServer, bucket: str, expected: dict[str, bytes]) -> Iterator[str]:
    """Exactly one right object for each of ``expected``; a heartbeat may be there too."""
    found = set(server.keys(bucket))
    yield from (f"not in the store: {key}" for key in sorted(expected.keys() - found))
    yield from (f"in the store, but not sent: {key}" for key in sorted(found - expected.keys()))
    for key in sorted(found & expected.keys()):
        entry = server.client.get_object(Bucket=bucket, Key=key)
        content = entry["Body"].read()
        if content != expected[key]:
            yield f"other bytes: {key}: {len(content)}, not {len(expected[key])}"
        promised = {"sha256": hashlib.sha256(expected[key]).hexdigest()}
        if key.endswith(ARCHIVE) and entry["Metadata"] != promised:
            yield f"other metadata: {key}: {entry['Metadata']}"


def unfinished_uploads(server: MinioServer, bucket: str, keys: Iterable[str]) -> list[Upload]:
    """Those to one of ``keys``; without a prefix, MinIO tells of none from before its start."""
    client = server.client
    pages = [client.list_multipart_uploads(Bucket=bucket, Prefix=key) for key in keys]
    return [
        Upload(one["Key"], one["UploadId"]) for page in pages for one in page.get("Uploads", [])
    ]


def broken_uploads(
    server: MinioServer, bucket: str, uploads: Sequence[Upload], told: Set[str]
) -> Iterator[str]:
    """None is left but one of which the shipper was never ``told``; and that one holds nothing."""
    for upload in uploads:
        name = {"Bucket": bucket, "Key": upload.key, "UploadId": upload.id}
        parts = server.client.list_parts(**name).get("Parts", [])
        if upload.id in told:
            yield f"an upload is left, with {len(parts)} parts"
        elif parts:
            yield f"an upload nobody knows of has {len(parts)} parts"


def broken_outcomes(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """Each good bundle is said to be shipped once, and none is blamed for what the store did."""
    for bundle_id in GOOD:
        mine = [one for one in outcomes if one.bundle_id == bundle_id]
        shipped = sum(one.key is not None and one.fault is None for one in mine)
        if shipped != 1:
            yield f"{bundle_id} was said to be shipped {shipped} times"
        yield from (
            f"{bundle_id} is blamed: {one.fault}"
            for one in mine
            if isinstance(one.fault, BundleFault)
        )
