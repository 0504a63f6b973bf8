"""Counts what became of every order to collect; who wants to know hears of it in one breath."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

from agent.detection.anomaly import AnomalyAction
from agent.service.audit import Audit
from agent.storage.spool import SpooledBundle

# For those who ask for one order.
KEPT_FAILURES = 32


@dataclass(frozen=True)
class CollectorStatistics:
    """Orders by fate since the start. ``refused`` are those that found the queue full or closed.

    ``last_failure`` and ``last_bundle_id`` are empty until there is one.
    """

    collected: int = 0
    failed: int = 0
    refused: int = 0
    running: int = 0
    last_failure: str = ""
    last_bundle_id: str = ""


def _ignore(_: object) -> None:
    pass


@dataclass(frozen=True)
class Listener:
    """Called in the collector's thread: ``published`` after each bundle, ``failed`` after each
    accepted order that became none. They must neither block nor raise."""

    published: Callable[[SpooledBundle], None] = _ignore
    failed: Callable[[AnomalyAction], None] = _ignore


class CollectionTally:
    """Thread-safe."""

    def __init__(self, audit: Audit, listener: Listener) -> None:
        self._audit = audit
        self._listener = listener
        self._lock = threading.Lock()
        self._now = CollectorStatistics()
        self._failures: deque[tuple[str, str]] = deque(maxlen=KEPT_FAILURES)

    def statistics(self) -> CollectorStatistics:
        """A snapshot."""
        with self._lock:
            return self._now

    def failure(self, bundle_id: str) -> str:
        """Why this order came to nothing; empty when it has not, or is no longer known."""
        with self._lock:
            return dict(self._failures).get(bundle_id, "")

    def started(self) -> None:
        """One more collection runs."""
        with self._lock:
            self._now = replace(self._now, running=self._now.running + 1)

    def published(self, action: AnomalyAction, bundle: SpooledBundle) -> None:
        """A running collection ended with a bundle."""
        with self._lock:
            self._now = replace(
                self._now,
                running=self._now.running - 1,
                collected=self._now.collected + 1,
                last_bundle_id=bundle.id,
            )
        message = f"Collected {bundle.id} for {action.anomaly.name}: {action.trigger.reason}"
        self._audit.record("collection", message, **_identity(action), size=bundle.size)
        self._listener.published(bundle)

    def failed(self, action: AnomalyAction, fault: BaseException) -> None:
        """A running collection ended without a bundle."""
        reason = f"{type(fault).__name__}: {fault}"
        with self._lock:
            self._now = replace(
                self._now,
                running=self._now.running - 1,
                failed=self._now.failed + 1,
                last_failure=reason,
            )
        self._record_loss(action, reason)
        self._listener.failed(action)

    def refused(self, action: AnomalyAction, reason: str) -> None:
        """An order was not accepted."""
        with self._lock:
            self._now = replace(self._now, refused=self._now.refused + 1, last_failure=reason)
        self._record_loss(action, reason)

    def _record_loss(self, action: AnomalyAction, reason: str) -> None:
        with self._lock:
            self._failures.append((action.id, reason))
        message = f"No bundle for {action.anomaly.name} ({action.trigger.reason}): {reason}"
        self._audit.record("collection_failed", message, **_identity(action), reason=reason)


def _identity(action: AnomalyAction) -> dict[str, str]:
    return {
        "bundle": action.id,
        "anomaly": action.anomaly.name,
        "incident": action.incident.incident_id,
    }
