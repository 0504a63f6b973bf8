"""What a manifest promises of its archive, as far as the relay has to know."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from agent.storage.spool import ARCHIVE
from shipper.destinations.object_key import tombstone_key
from shipper.relay.refusal import Refusal

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Claim:
    """Size (bytes) and sha256 of the archive of bundle ``id``."""

    id: str
    size: int
    sha256: str


def read_claim(bundle_id: str, manifest: bytes) -> Claim:
    """Of the manifest that came with ``bundle_id``; raises Refusal (bundle)."""
    document = read_object(bundle_id, manifest)
    archive = document.get("archive")
    if not isinstance(archive, dict):
        raise _refusal("there is no object 'archive' in it")
    size, sha256 = archive.get("size"), archive.get("sha256")
    if archive.get("file") != f"{bundle_id}{ARCHIVE}":
        raise _refusal("archive.file is not the bundle's")
    if type(size) is not int or size < 0:
        raise _refusal("archive.size is no size in bytes")
    if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
        raise _refusal("archive.sha256 is no sha256")
    return Claim(bundle_id, size, sha256)


def read_object(bundle_id: str, content: bytes) -> dict[str, object]:
    """The JSON object ``content`` that speaks of ``bundle_id``; raises Refusal (bundle)."""
    document = parse_object(content)
    if document.get("id") != bundle_id:
        raise _refusal("its id is another")
    try:
        tombstone_key("", "", "", bundle_id, "")
    except ValueError as error:  # nothing could ever be shipped under it
        raise _refusal(f"its id has no day ({error})") from error
    return document


def parse_object(content: bytes) -> dict[str, object]:
    """The JSON object ``content``; raises Refusal (bundle)."""
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise _refusal("it is no JSON") from error
    if not isinstance(document, dict):
        raise _refusal("it is no JSON object")
    return document


def _refusal(problem: str) -> Refusal:
    return Refusal("bundle", f"bad document: {problem}", "compare it with the file in the spool")
