"""What is left of a bundle that had to go before it was shipped: enough to know what was lost."""

from __future__ import annotations

import json

from agent.storage.spool import Manifest, SpooledBundle

SCHEMA = 1
SIZE = "size"


def make_tombstone(bundle: SpooledBundle, manifest: Manifest, evicted_at: str) -> Manifest:
    """For ``bundle``, of which ``manifest`` tells what is known; ``evicted_at`` in ISO 8601."""
    known = {**_known(manifest), "size": bundle.size, "evicted_at": evicted_at}
    return _complete(bundle.id, {**known, "quarantined": bundle.quarantined})


def read_tombstone(bundle_id: str, content: bytes) -> Manifest:
    """The tombstone in ``<id>.evicted``, complete; what cannot be known is None.

    On a full disk the bundle's own manifest lies there: the marker became the tombstone.
    """
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        return _complete(bundle_id, {})
    return _complete(bundle_id, _known(document) if "archive" in document else document)


def _known(manifest: Manifest) -> Manifest:
    """A tombstone's members in the manifest of a bundle."""
    archive, incident = manifest.get("archive"), manifest.get("incident")
    return {
        "host": manifest.get("host"),
        "anomaly": manifest.get("anomaly"),
        "incident": incident.get("id") if isinstance(incident, dict) else None,
        "size": archive.get("size") if isinstance(archive, dict) else None,
        "sha256": archive.get("sha256") if isinstance(archive, dict) else None,
    }


def _complete(bundle_id: str, known: Manifest) -> Manifest:
    size, reason = known.get("size"), _text(known.get("reason"))
    return {
        "schema": SCHEMA,
        "id": bundle_id,
        "reason": reason or SIZE,
        "size": size if type(size) is int else None,
        "quarantined": known.get("quarantined") is True,
        **{
            name: _text(known.get(name))
            for name in ("host", "anomaly", "incident", "sha256", "evicted_at")
        },
    }


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
