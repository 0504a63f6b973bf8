"""The words of faults: what of a store may be said, in a form that is fit for a log."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from shipper.configuration.schema import S3Destination

_LIMIT = 300


@dataclass(frozen=True)
class StoreWords:
    """A store as its faults name it, without secrets.

    ``place`` is the bucket with the prefix of all keys, ``address`` the endpoint's host and port,
    ``rights`` what the key has to be allowed.
    """

    description: str
    bucket: str
    place: str
    address: str
    rights: tuple[str, ...]


def store_words(config: S3Destination, heartbeat_key: str) -> StoreWords:
    """The words for the store of ``config``; the folder of a host's folder is the prefix."""
    address = "AWS"
    description = f"s3://{config.bucket}"
    if config.endpoint_url is not None:  # a URL may carry a password before its host
        address = urlsplit(config.endpoint_url).netloc.rpartition("@")[2]
        description += f" at {address}"
    place = "/".join([config.bucket, *heartbeat_key.split("/")[:-2]])
    return StoreWords(description, config.bucket, place, address, needed_rights(config))


def needed_rights(config: S3Destination) -> tuple[str, ...]:
    """What the key has to be allowed on the bucket's objects, and perhaps on the KMS key."""
    rights = ["s3:PutObject", "s3:AbortMultipartUpload"]
    if config.tags:
        rights.append("s3:PutObjectTagging")
    return (*rights, *kms_rights(config))


def kms_rights(config: S3Destination) -> tuple[str, ...]:
    """What AWS wants to be allowed on a KMS key of one's own; other stores decide elsewhere."""
    at_aws = config.kms_key_id and is_at_aws(config)
    return ("kms:GenerateDataKey", "kms:Decrypt") if at_aws else ()


def is_at_aws(config: S3Destination) -> bool:
    """Whether the store is AWS S3 itself."""
    host = urlsplit(config.endpoint_url).hostname if config.endpoint_url else None
    return host is None or host.endswith((".amazonaws.com", ".amazonaws.com.cn"))


def printable(text: str) -> str:
    """What a server said: no control characters, no novel."""
    return "".join(character if character.isprintable() else "?" for character in text)[:_LIMIT]


def duration(seconds: float) -> str:
    """In the unit a person would use."""
    for unit, size in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
