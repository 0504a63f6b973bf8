"""What must hold after any crash, once the agent has started again."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import zstandard

from agent.storage.spool import ARCHIVE, DONE, EVICTED, SHIPPED, Spool
from tests.crash_matrix import agent_start, victim
from tests.crash_matrix.victim import Fates

SUFFIXES = (ARCHIVE, DONE, SHIPPED, EVICTED)


def whole_bundles(root: Path) -> set[str]:
    """Ids with a marker and an archive."""
    parts = _parts(root)
    return parts[DONE] & parts[ARCHIVE]


def broken_after_restart(root: Path, fates: Fates) -> list[str]:
    """Start on the spool ``root`` as the agent does, and say in which ways it is not right then.

    ``fates``: those that each bundle may have; there must be no other bundle.
    """
    try:
        spool = agent_start.start(root)
        again = [*spool.recover(), *map(str, agent_start.unfinished(spool).recover())]
    except OSError as error:
        return [f"it does not start: {error}"]
    broken = [f"a second recovery still finds {name}" for name in again]
    return [*broken, *_broken_files(root), *broken_fates(root, fates), *_broken_counts(spool)]


def fate_of(root: Path, bundle_id: str) -> str:
    """By the files alone, whatever the agent makes of them."""
    parts = _parts(root)
    if bundle_id in parts[SHIPPED]:
        return victim.DELIVERED
    if bundle_id in parts[EVICTED]:
        return victim.EVICTED
    return victim.PENDING if bundle_id in parts[DONE] else victim.ABSENT


def _broken_files(root: Path) -> Iterator[str]:
    """No half bundle, nothing left over."""
    yield from (f"left in staging: {path.name}" for path in (root / "staging").iterdir())
    yield from (
        f"left in batches: {path.name}"
        for path in (root / "batches").iterdir()
        if path.name.startswith(".") or path.name[26:] not in SUFFIXES
    )
    parts = _parts(root)
    yield from (f"archive without marker: {name}" for name in parts[ARCHIVE] - parts[DONE])
    yield from (f"marker without archive: {name}" for name in parts[DONE] - parts[ARCHIVE])
    for bundle_id in whole_bundles(root):
        yield from _broken_bundle(root / "batches", bundle_id)


def _broken_bundle(batches: Path, bundle_id: str) -> Iterator[str]:
    data = (batches / f"{bundle_id}{ARCHIVE}").read_bytes()
    try:
        marker = json.loads((batches / f"{bundle_id}{DONE}").read_bytes())
        archive = marker.pop("archive")
        manifest = _manifest_inside(data)
    except (ValueError, KeyError, tarfile.TarError, zstandard.ZstdError) as error:
        yield f"half a bundle: {bundle_id}: {error!r}"
        return
    if (archive["size"], archive["sha256"]) != (len(data), hashlib.sha256(data).hexdigest()):
        yield f"the marker of {bundle_id} is another archive's"
    if manifest != marker:
        yield f"marker and manifest of {bundle_id} differ"


def _manifest_inside(archive: bytes) -> Any:
    """Read to the end, so that its checksum counts."""
    with zstandard.ZstdDecompressor().stream_reader(archive) as stream:
        plain = stream.read()
    with tarfile.open(fileobj=io.BytesIO(plain)) as tar:
        files = {member.name.partition("/")[2]: tar.extractfile(member) for member in tar}
    file = files["manifest.json"]
    return json.load(file) if file else None


def broken_fates(root: Path, fates: Fates) -> Iterator[str]:
    """None lost, none from nowhere."""
    for bundle_id, allowed in fates.items():
        fate = fate_of(root, bundle_id)
        if fate not in allowed:
            yield f"{bundle_id} is {fate}, not {' or '.join(sorted(allowed))}"
    known = set().union(*_parts(root).values())
    yield from (f"a bundle from nowhere: {name}" for name in known - set(fates))


def _broken_counts(spool: Spool) -> Iterator[str]:
    """Made is the sum of the fates, and each fate has as many as there are."""
    counts = spool.counts()
    ids = set().union(*_parts(spool.root).values())
    fates = Counter(fate_of(spool.root, bundle_id) for bundle_id in ids)
    fates.pop(victim.ABSENT, None)
    said = (counts.made, counts.delivered, counts.pending, counts.evicted)
    true = (fates.total(), fates["delivered"], fates["pending"], fates["evicted"])
    if said != true or counts.fault:
        yield f"counts {counts}, but there are {dict(fates)}"


def _parts(root: Path) -> dict[str, set[str]]:
    """Ids by suffix."""
    names = [path.name for path in (root / "batches").iterdir()]
    return {
        suffix: {name[:26] for name in names if name[26:] == suffix and not name.startswith(".")}
        for suffix in SUFFIXES
    }
