"""An incident, not an alarm: trouble of one cause is one incident with one bundle."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field

from agent.storage.ulid import new_ulid

# After this long a failed collection is tried again, if the trouble lasts.
RETRY_NS = 60_000_000_000


@dataclass(frozen=True)
class IncidentLimits:
    """An incident is over after ``quiet_ns`` without a trigger; while it lasts, a further bundle
    is made after ``followup_ns`` at the earliest, and ``max_followups`` times at most."""

    quiet_ns: int
    followup_ns: int = 600_000_000_000
    max_followups: int = 6


@dataclass
class Incident:
    """Trouble of one cause. Times are CLOCK_MONOTONIC; ``rules`` counts triggers by rule.

    ``cause`` is a server's name, empty when it is not known. ``bundles`` are the
    ids of those ordered; ``has_bundle`` is False when the last of them came to nothing.
    """

    id: str
    cause: str
    opened_ns: int
    last_ns: int
    ordered_ns: int
    has_bundle: bool = True
    rules: dict[str, int] = field(default_factory=dict)
    bundles: list[str] = field(default_factory=list)

    @property
    def triggers(self) -> int:
        """All triggers so far."""
        return sum(self.rules.values())


@dataclass(frozen=True)
class BundleOrder:
    """A bundle that an incident is to get: its id, and which of the incident's it is, from 1."""

    bundle_id: str
    incident_id: str
    number: int
    cause: str
    opened_ns: int


class IncidentTracker:
    """Tells new incidents from further triggers of open ones. Thread-safe."""

    def __init__(self, limits: IncidentLimits) -> None:
        self.limits = limits
        self._changed: Callable[[Sequence[Incident]], None] = lambda _: None
        self._lock = threading.Lock()
        self._open: list[Incident] = []
        self._noted_ns = 0
        self.opened = 0
        self.suppressed = 0
        self.ended = 0

    def resume(
        self, known: Sequence[Incident], changed: Callable[[Sequence[Incident]], None]
    ) -> None:
        """Go on with ``known`` incidents. From now on ``changed`` gets the open ones whenever they
        are to survive a restart; it must not raise."""
        with self._lock:
            self._open = list(known)
            self._changed = changed

    def take(self, cause: str, rule: str, time_ns: int) -> BundleOrder | None:
        """Take a trigger of ``rule``; the bundle to be collected for it, if one is.

        That is so when it begins an incident, when the open one never got its bundle, or when it
        has lasted long enough for another.
        """
        with self._lock:
            incident = self._of(cause, time_ns)
            order = None
            if incident is None:
                incident = Incident(new_ulid(), cause, time_ns, time_ns, time_ns)
                self._open.append(incident)
                self.opened += 1
                order = self._order(incident, time_ns)
            else:
                incident.last_ns = max(incident.last_ns, time_ns)
                incident.cause = incident.cause or cause
                if self._wants_bundle(incident, time_ns):
                    order = self._order(incident, time_ns)
            incident.rules[rule] = incident.rules.get(rule, 0) + 1
            self.suppressed += order is None
            # Progress is not noted at every trigger: this is precise enough after a restart.
            noted = order or abs(time_ns - self._noted_ns) >= self.limits.quiet_ns // 4
            self._noted_ns = time_ns if noted else self._noted_ns
        if noted:
            self._note()
        return order

    def collection_failed(self, bundle_id: str) -> None:
        """This bundle of an incident came to nothing."""
        with self._lock:
            for incident in self._open:
                if incident.bundles and incident.bundles[-1] == bundle_id:
                    incident.bundles.pop()
                    incident.has_bundle = False
        self._note()

    def end_quiet(self, now_ns: int) -> list[Incident]:
        """The incidents that are over by ``now_ns``, each once."""
        with self._lock:
            over = [i for i in self._open if now_ns - i.last_ns > self.limits.quiet_ns]
            self._open = [i for i in self._open if i not in over]
            self.ended += len(over)
        if over:
            self._note()
        return over

    def next_end_ns(self) -> int | None:
        """When the next open incident is over, if nothing else happens; None: none is open."""
        with self._lock:
            ends = [incident.last_ns for incident in self._open]
            return min(ends) + self.limits.quiet_ns + 1 if ends else None

    def open(self) -> list[Incident]:
        """The incidents that last; copies."""
        with self._lock:
            return deepcopy(self._open)

    def _of(self, cause: str, time_ns: int) -> Incident | None:
        """The open incident of that cause; an unknown cause is that of whatever lasts."""
        lasting = [i for i in self._open if time_ns - i.last_ns <= self.limits.quiet_ns]
        exact = [i for i in lasting if i.cause == cause]
        unclear = [i for i in lasting if not cause or not i.cause]
        return next(iter([*exact, *unclear]), None)

    def _order(self, incident: Incident, time_ns: int) -> BundleOrder:
        incident.ordered_ns, incident.has_bundle = time_ns, True
        incident.bundles.append(new_ulid())
        number = len(incident.bundles)
        return BundleOrder(
            incident.bundles[-1], incident.id, number, incident.cause, incident.opened_ns
        )

    def _wants_bundle(self, incident: Incident, time_ns: int) -> bool:
        waited_ns = time_ns - incident.ordered_ns
        if not incident.has_bundle:
            return waited_ns >= RETRY_NS
        if len(incident.bundles) > self.limits.max_followups:
            return False
        return waited_ns >= self.limits.followup_ns

    def _note(self) -> None:
        """Outside the lock, since a sick disk must not keep anybody else waiting."""
        self._changed(self.open())
