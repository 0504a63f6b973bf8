"""Where a bundle lies in the store: host, day and anomaly can be read without opening anything."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timezone

from agent.storage.spool import ARCHIVE
from agent.storage.ulid import ulid_time_ms

# Short enough that the longest key part still fits into a file name with a temporary's suffix.
NAME_LIMIT = 128

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True)
class ObjectKeys:
    """The two objects of one bundle; the manifest is written last."""

    archive: str
    manifest: str


def safe_name(text: str) -> str:
    """``text`` as one harmless part of a key: ``[A-Za-z0-9._-]``, no leading dot or dash."""
    return _UNSAFE.sub("_", text).strip(".-_")[:NAME_LIMIT].rstrip(".-_") or "unknown"


def object_keys(prefix: str, host: str, anomaly: str, bundle_id: str, sha256: str) -> ObjectKeys:
    """The keys of bundle ``bundle_id`` (a ULID) below ``prefix``, by the UTC day of its trigger.

    ``host`` and ``anomaly`` may be hostile text. Raises ValueError when the ULID's time is
    beyond the year 9999.
    """
    stem = _stem(prefix, host, anomaly, bundle_id, sha256)
    return ObjectKeys(archive=stem + ARCHIVE, manifest=stem + ".json")


def tombstone_key(prefix: str, host: str, anomaly: str, bundle_id: str, sha256: str) -> str:
    """Where the tombstone of an evicted bundle lies: beside the manifest that never came.

    Everything as for `object_keys`; what is not known is empty, and does not stand in the key.
    """
    return _stem(prefix, host, anomaly, bundle_id, sha256) + ".evicted.json"


def heartbeat_key(prefix: str, host: str) -> str:
    """Where the sign of life of ``host`` lies: beside the years of its bundles."""
    return "/".join([*_folders(prefix), safe_name(host), "heartbeat.json"])


def _stem(prefix: str, host: str, anomaly: str, bundle_id: str, sha256: str) -> str:
    day = datetime.fromtimestamp(ulid_time_ms(bundle_id) / 1000, tz=timezone.utc)
    days = [f"{day.year:04}", f"{day.month:02}", f"{day.day:02}"]
    name = [bundle_id, safe_name(anomaly), *([sha256[:12]] if sha256 else [])]
    return "/".join([*_folders(prefix), safe_name(host), *days, "-".join(name)])


def _folders(prefix: str) -> list[str]:
    return [part for part in prefix.split("/") if part not in ("", ".", "..")]
