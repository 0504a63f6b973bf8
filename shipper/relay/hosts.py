"""Who hands in what: one line per host of the inbox, read from the files alone."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from shipper.destinations.object_key import safe_name
from shipper.relay.host_folder import HostFolder


@dataclass(frozen=True)
class HostStatus:
    """``waiting`` bundles of ``bytes`` are not in the store yet; times in ISO 8601, UTC."""

    host: str
    waiting: int
    bytes: int
    last_accepted: str | None
    last_heartbeat: str | None


def read_hosts(inbox: Path) -> list[HostStatus]:
    """Every host that ever connected, by name. Raises OSError."""
    return [
        _read_host(HostFolder(inbox, path.name))
        for path in sorted(inbox.iterdir())
        if safe_name(path.name) == path.name and path.is_dir() and not path.is_symlink()
    ]


def as_table(hosts: list[HostStatus]) -> str:
    """For people."""
    heads = ("HOST", "WAITING", "BYTES", "LAST ACCEPTED", "LAST HEARTBEAT")
    rows = [
        (one.host, str(one.waiting), str(one.bytes), one.last_accepted, one.last_heartbeat)
        for one in hosts
    ]
    cells = [heads, *(tuple(cell or "never" for cell in row) for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(heads))]
    lines = ("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in cells)
    return "\n".join(line.rstrip() for line in lines)


def _read_host(folder: HostFolder) -> HostStatus:
    pending = folder.spool.pending()
    return HostStatus(
        folder.host,
        len(pending),
        sum(bundle.size for bundle in pending),
        _changed(folder.accepted_mark),
        _changed(folder.heartbeat),
    )


def _changed(path: Path) -> str | None:
    with suppress(FileNotFoundError):
        moment = datetime.fromtimestamp(path.stat().st_mtime, tz=timezone.utc)
        return moment.isoformat(timespec="seconds")
    return None
