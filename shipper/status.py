"""What ``aod-shipper status`` shows, all of it read from the spool's files."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field
from typing import Any

from agent.storage import durable_file
from agent.storage.spool import SHIPPED, Spool
from agent.storage.spool_counts import SpoolCounts
from shipper.shipper_state import FaultNote, StateFile


@dataclass(frozen=True)
class ShipperStatus:
    """The spool as the shipper sees it. ``last_delivery`` is the newest receipt, and ``tombstones``
    counts those of which the store does not know yet."""

    spool: str
    destination: str
    counts: SpoolCounts
    tombstones: int
    oldest_pending: str | None
    oldest_pending_age_sec: float | None
    last_delivery: dict[str, Any] | None
    faults: list[FaultNote] = field(default_factory=list)

    def as_json(self) -> str:
        """One JSON object, the field names as here."""
        return json.dumps(asdict(self), indent=2)

    def as_text(self) -> str:
        """A few lines for people."""
        counts = self.counts
        lines = [
            f"spool          {self.spool}",
            f"destination    {self.destination}",
            f"pending        {counts.pending} ({_bytes(counts.pending_bytes)})",
        ]
        if self.oldest_pending is not None:
            age = _age(self.oldest_pending_age_sec or 0)
            lines.append(f"oldest         {self.oldest_pending} ({age} old)")
        lines.append(f"delivered      {counts.delivered}")
        if counts.evicted:
            lines.append(
                f"evicted        {counts.evicted} (never shipped: the spool was full), "
                f"{self.tombstones} of which the store does not know"
            )
        if counts.quarantined:
            lines.append(f"quarantined    {counts.quarantined} (not what their manifests say)")
        if counts.fault:
            lines.append(f"NO COUNTS      {counts.fault}")
        if self.last_delivery is not None:
            receipt = self.last_delivery
            lines.append(f"last delivery  {receipt.get('shipped_at')} {receipt.get('key')}")
        for fault in self.faults:
            lines.append(f"fault          {fault.kind}: {fault.text} (since {fault.since})")
            lines.append(f"  remedy       {fault.remedy}")
        return "\n".join(lines)


def read_status(spool: Spool, destination: str) -> ShipperStatus:
    """The status of ``spool`` now. Raises OSError when it may not be read."""
    pending = [
        bundle for bundle in spool.pending() if not bundle.quarantined and not bundle.evicted
    ]
    oldest = pending[0] if pending else None
    return ShipperStatus(
        spool=str(spool.root),
        destination=destination,
        counts=spool.counts(),
        tombstones=len(spool.undelivered_tombstones()),
        oldest_pending=oldest.id if oldest else None,
        oldest_pending_age_sec=max(0.0, time.time() - oldest.time_ms / 1000) if oldest else None,
        last_delivery=_newest_receipt(spool),
        faults=StateFile(spool.batches).read().faults,
    )


def _newest_receipt(spool: Spool) -> dict[str, Any] | None:
    try:
        newest = max(spool.batches.glob(f"*{SHIPPED}"), key=lambda path: path.lstat().st_mtime_ns)
        receipt = json.loads(durable_file.read_plain(newest))
    except (OSError, ValueError, RecursionError):  # none yet, or not one of ours
        return None
    return receipt if isinstance(receipt, dict) else None


def _bytes(count: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.4g} {unit}"
        count /= 1024
    return f"{count:.4g} GiB"


def _age(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"
