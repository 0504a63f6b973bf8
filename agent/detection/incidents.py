"""An incident, not an alarm: trouble that lasts is one incident with one bundle."""

from __future__ import annotations

from dataclasses import dataclass

# After this long a failed collection is tried again, if the trouble lasts.
RETRY_NS = 60_000_000_000


@dataclass
class Incident:
    """Trouble under one rule, open until it has been quiet long enough."""

    ordered_ns: int
    last_ns: int
    has_bundle: bool = True


class IncidentTracker:
    """Tells new incidents from further triggers of open ones. Times are those of the events.

    One thread calls `is_new`; `collection_failed` may come from any.
    """

    def __init__(self, quiet_ns: int) -> None:
        self._quiet_ns = quiet_ns
        self._open: dict[str, Incident] = {}
        self.incidents = 0
        self.suppressed = 0

    def is_new(self, rule: str, time_ns: int) -> bool:
        """Take a trigger of ``rule``; whether a bundle is to be collected for it.

        That is so when it begins an incident, or when the open one never got its bundle.
        """
        incident = self._open.get(rule)
        if incident is None or time_ns - incident.last_ns > self._quiet_ns:
            self._open[rule] = Incident(time_ns, time_ns)
            self.incidents += 1
            return True
        incident.last_ns = max(incident.last_ns, time_ns)
        if not incident.has_bundle and time_ns - incident.ordered_ns >= RETRY_NS:
            incident.ordered_ns, incident.has_bundle = time_ns, True
            return True
        self.suppressed += 1
        return False

    def collection_failed(self, rule: str) -> None:
        """The incident of ``rule`` has no bundle after all."""
        incident = self._open.get(rule)
        if incident:
            incident.has_bundle = False
