"""Open incidents on disk: an agent that is restarted goes on with them."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from agent.detection.incidents import Incident
from agent.storage.durable_file import TEMPORARY_SUFFIX, publish_bytes, read_plain

log = logging.getLogger("aod.incidents")

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
SIZE_LIMIT = 1 << 20
TIMES = ("opened_ns", "last_ns", "ordered_ns")


class IncidentStore:
    """One small file. ``has_bundle`` says of a bundle id whether it was really made: one that was
    under way when the agent died was not.

    CLOCK_MONOTONIC starts anew with every boot, so the file holds the boot and the wall clock
    beside it: only after a reboot does the wall clock count.
    """

    def __init__(self, path: Path, has_bundle: Callable[[str], bool]) -> None:
        self._path = path
        self._has_bundle = has_bundle

    def save(self, incidents: Sequence[Incident]) -> None:
        """Write them; a disk that does not take them is logged, and detection goes on."""
        try:
            document = {
                "boot_id": BOOT_ID.read_text().strip(),
                "wall_offset_ns": time.time_ns() - time.monotonic_ns(),
                "open": [asdict(incident) for incident in incidents],
            }
            publish_bytes(self._path, json.dumps(document, indent=1).encode() + b"\n")
        except OSError as error:
            log.warning("open incidents are not saved: %s", error)

    def load(self) -> list[Incident]:
        """What was open; a file that makes no sense is logged and counts as none. A temporary that
        a killed run left goes."""
        for leftover in self._path.parent.glob(f".{self._path.name}.*{TEMPORARY_SUFFIX}"):
            leftover.unlink(missing_ok=True)
        try:
            document = json.loads(read_plain(self._path, SIZE_LIMIT))
            shift_ns = self._shift_ns(document)
            return [self._restored(Incident(**entry), shift_ns) for entry in document["open"]]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            log.warning("open incidents of the last run are unknown: %s: %s", self._path, error)
            return []

    def _shift_ns(self, document: dict[str, object]) -> int:
        """What to add to the file's times for this boot's clock."""
        if document["boot_id"] == BOOT_ID.read_text().strip():
            return 0
        then = document["wall_offset_ns"]
        if not isinstance(then, int):
            raise TypeError("wall_offset_ns is no number")
        return then - (time.time_ns() - time.monotonic_ns())

    def _restored(self, incident: Incident, shift_ns: int) -> Incident:
        # A clock that was set back over a reboot would put them into the future.
        now_ns = time.monotonic_ns()
        moved = {name: min(getattr(incident, name) + shift_ns, now_ns) for name in TIMES}
        restored = replace(incident, **moved)
        if restored.bundles and not self._has_bundle(restored.bundles[-1]):
            restored.bundles.pop()
            # The next trigger gets the bundle that the last run owed.
            restored.has_bundle, restored.ordered_ns = False, restored.opened_ns - (1 << 62)
        return restored
