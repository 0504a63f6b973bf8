"""An incident, not an alarm: trouble that lasts is one incident with one bundle."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Incident:
    """Trouble under one rule, open until it has been quiet long enough."""

    first_ns: int
    last_ns: int
    triggers: int = 1


class IncidentTracker:
    """Tells new incidents from further triggers of open ones. Times are those of the events."""

    def __init__(self, quiet_ns: int) -> None:
        self._quiet_ns = quiet_ns
        self._open: dict[str, Incident] = {}
        self.incidents = 0
        self.suppressed = 0

    def is_new(self, rule: str, time_ns: int) -> bool:
        """Take a trigger of ``rule``; whether it begins an incident."""
        incident = self._open.get(rule)
        if incident and time_ns - incident.last_ns <= self._quiet_ns:
            incident.last_ns = max(incident.last_ns, time_ns)
            incident.triggers += 1
            self.suppressed += 1
            return False
        self._open[rule] = Incident(time_ns, time_ns)
        self.incidents += 1
        return True
