"""What became of the bundles, in numbers that always add up."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.storage.history import History

if TYPE_CHECKING:
    from agent.storage.spool import SpooledBundle


@dataclass(frozen=True)
class SpoolCounts:
    """Bundles by fate; ``made`` is the sum of the other four. Each counts once: as delivered, else
    as evicted, else as quarantined, else as pending.

    ``fault`` says why the spool cannot be read (the numbers are 0 then); else it is empty.
    """

    made: int = 0
    delivered: int = 0
    pending: int = 0
    evicted: int = 0
    quarantined: int = 0
    pending_bytes: int = 0
    total_bytes: int = 0
    fault: str = ""


def count(
    finished: Sequence[SpooledBundle], receipts: Set[str], tombstones: Set[str], history: History
) -> SpoolCounts:
    """The counts of a spool with these bundles, these ids with a receipt, with a tombstone, and
    this history."""
    delivered = receipts - history.folding
    evicted = tombstones - history.folding - delivered
    ended = delivered | evicted | history.folding
    waiting = [bundle for bundle in finished if bundle.id not in ended]
    pending = [bundle for bundle in waiting if not bundle.quarantined]
    return SpoolCounts(
        made=len(delivered) + history.delivered + len(evicted) + history.evicted + len(waiting),
        delivered=len(delivered) + history.delivered,
        pending=len(pending),
        evicted=len(evicted) + history.evicted,
        quarantined=len(waiting) - len(pending),
        pending_bytes=sum(bundle.size for bundle in pending),
        total_bytes=sum(bundle.size for bundle in finished),
    )
