"""Whether bundles can be delivered into a directory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from agent.storage import durable_file
from shipper.destinations.finding import Finding

_SMALL = 1 << 30


def check_writable(step: str, directory: Path, remedy: str) -> Finding:
    """Whether a file can be made in ``directory`` and is durable there."""
    trial = durable_file.temporary_beside(directory / "check")
    try:
        try:
            with os.fdopen(durable_file.create_exclusive(trial), "wb") as file:
                file.write(b"check")
                file.flush()
                os.fsync(file.fileno())
            durable_file.sync_directory(directory)
        finally:
            trial.unlink(missing_ok=True)
    except OSError as error:
        return Finding(step, "failed", f"{directory}: {error.strerror or error}", remedy)
    return Finding(step, "ok", f"{directory} takes files and keeps them")


def check_room(directory: Path) -> Finding:
    """How much room there is for the user of this process."""
    status = os.statvfs(directory)
    free = status.f_bavail * status.f_frsize
    detail = f"{free / 1e9:.1f} GB are free in {directory}"
    if free >= _SMALL:
        return Finding("room", "ok", detail)
    return Finding("room", "warning", detail, "make room there")


def check_directory(root: Path, mode: int) -> Iterator[Finding]:
    """See `shipper.destinations.finding.Preflight`; ``root`` is made with ``mode`` when missing."""
    try:
        root.mkdir(mode=mode, parents=True, exist_ok=True)
    except OSError as error:
        yield Finding(
            "directory",
            "failed",
            f"{root}: {error.strerror or error}",
            "make it, and let the shipper's user write into it",
        )
        return
    found = check_writable(
        "directory",
        root,
        "let the shipper's user write there; in the unit, add it to ReadWritePaths",
    )
    yield found
    if found.state == "ok":
        yield check_room(root)
