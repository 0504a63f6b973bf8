"""Reads bundles back, for tests."""

from __future__ import annotations

import io
import tarfile

import zstandard

from agent.collection.bundle_cleaner import BundleCleaner
from agent.collection.bundle_sealer import BundleSealer
from agent.collection.scene import Roots
from agent.storage.spool import Spool, SpooledBundle


def members(bundle: SpooledBundle) -> dict[str, bytes]:
    """Names (without the top directory) and contents, in the archive's order."""
    with bundle.archive.open("rb") as file:
        plain = zstandard.ZstdDecompressor().stream_reader(file).read()
    with tarfile.open(fileobj=io.BytesIO(plain)) as tar:
        files = {member.name: tar.extractfile(member) for member in tar}
    return {name.removeprefix(f"{bundle.id}/"): file.read() for name, file in files.items() if file}


def sealer(spool: Spool) -> BundleSealer:
    """As the agent has it, without pseudonyms."""
    return BundleSealer(spool, BundleCleaner(Roots(), "client-7", spool.root / "pseudonyms.json"))
