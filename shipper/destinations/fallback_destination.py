"""Another way for bundles while the relay is away."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from shipper.destinations.delivery import Delivery
from shipper.destinations.destination import Destination
from shipper.destinations.document import Document
from shipper.destinations.finding import Finding
from shipper.faults import DestinationFault, HostFault, NetworkFault

Result = TypeVar("Result")


class FallbackDestination:
    """Ships to ``first``; once it has failed for ``after_sec``, to ``second``, until it is back.

    Then ``first`` is asked every ``probe_sec`` only. A bundle whose acknowledgement was lost may
    go both ways: under the same keys, so that it is in the store once. How long ``first`` has
    failed is counted anew after a restart. Many threads at once.
    """

    def __init__(
        self,
        first: Destination,
        second: Destination,
        after_sec: float,
        probe_sec: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._first = first
        self._second = second
        self._after_sec = after_sec
        self._probe_sec = probe_sec
        self._clock = clock
        self._lock = threading.Lock()
        self._failing_since: float | None = None
        self._probed = 0.0

    @property
    def description(self) -> str:
        """Both ways in words."""
        return f"{self._first.description}, else {self._second.description}"

    def deliver(self, delivery: Delivery) -> str:
        """See `Destination`."""
        return self._by_either(lambda store: store.deliver(delivery))

    def put_document(self, document: Document) -> None:
        """See `Destination`."""
        self._by_either(lambda store: store.put_document(document))

    def abandon(self, note: Path) -> None:
        """See `Destination`."""
        for store in (self._first, self._second):
            store.abandon(note)

    def check(self) -> Iterator[Finding]:
        """See `shipper.destinations.finding.Preflight`: both ways have to be open."""
        for store in (self._first, self._second):
            yield from store.check()

    def _by_either(self, act: Callable[[Destination], Result]) -> Result:
        if self._is_firsts_turn():
            try:
                result = act(self._first)
            except (NetworkFault, DestinationFault, HostFault):
                if not self._has_failed_long():
                    raise
            else:
                self._failing_since = None
                return result
        return act(self._second)

    def _is_firsts_turn(self) -> bool:
        with self._lock:
            now, since = self._clock(), self._failing_since
            if since is None or now - since < self._after_sec:
                return True
            if now - self._probed < self._probe_sec:
                return False
            self._probed = now
            return True

    def _has_failed_long(self) -> bool:
        with self._lock:
            now = self._clock()
            if self._failing_since is None:
                self._failing_since = now
            if now - self._failing_since < self._after_sec:
                return False
            self._probed = now
            return True
