"""The LogCollector: takes orders to collect, and works them off in a thread of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from agent.collection.collection_tally import CollectionTally, CollectorStatistics, Listener
from agent.collection.mailbox import Mailbox
from agent.collection.surroundings import Surroundings
from agent.configuration.schema import CollectionConfig
from agent.detection.anomaly import AnomalyAction
from agent.service.audit import Audit
from agent.storage.spool import Spool

if TYPE_CHECKING:
    from agent.collection.collection_loop import CollectionLoop

# Orders hold copies of the flight recorder, megabytes each.
MAX_WAITING = 16


class LogCollector:
    """Collects one bundle for every order.

    `run` is the body of one thread; every other method may be called from any thread, and only
    `submit_waiting` blocks.
    """

    def __init__(
        self,
        spool: Spool,
        config: CollectionConfig,
        audit: Audit,
        surroundings: Surroundings | None = None,
        listener: Listener | None = None,
    ) -> None:
        self._spool = spool
        self._config = config
        self._audit = audit
        self._surroundings = surroundings or Surroundings()
        self._mailbox = Mailbox(MAX_WAITING)
        self._tally = CollectionTally(audit, listener or Listener())

    def submit(self, action: AnomalyAction) -> bool:
        """Order a collection; False (counted, audited) when stopped or too many wait."""
        accepted = self._mailbox.put(action)
        if not accepted:
            self._tally.refused(action, f"stopped, or {MAX_WAITING} collections already wait")
        return accepted

    def submit_waiting(self, action: AnomalyAction) -> bool:
        """As `submit`, but when too many wait, block until there is room."""
        accepted = self._mailbox.put_waiting(action)
        if not accepted:
            self._tally.refused(action, "stopped")
        return accepted

    def drain(self) -> None:
        """Accept no more; `run` returns when every accepted order was worked off in full."""
        self._mailbox.close(hurry=False)

    def stop(self) -> None:
        """Accept no more; `run` returns soon, with a bundle for every accepted order.

        The actions that run get `collection_loop.STOP_GRACE_SEC` more; none is begun.
        """
        self._mailbox.close(hurry=True)

    def ping(self, answer: Callable[[], None]) -> None:
        """Have ``answer`` called by the collector's thread, as a sign of life."""
        self._mailbox.ping(answer)

    def statistics(self) -> CollectorStatistics:
        """A snapshot."""
        return self._tally.statistics()

    def failure(self, bundle_id: str) -> str:
        """Why this order came to nothing; empty when it has not, or long ago."""
        return self._tally.failure(bundle_id)

    def run(self) -> None:
        """Work until `stop`; no wake-up while there is nothing to do. May be run again."""
        if self._sleep_until_order():
            self._loop().run()

    def _sleep_until_order(self) -> bool:
        """Whether there is an order; False when stopped before any came."""
        while True:
            self._mailbox.wait()
            delivery = self._mailbox.take(0)
            for answer in delivery.pings:
                answer()
            if len(self._mailbox):
                return True
            if delivery.ended:
                return False

    def _loop(self) -> CollectionLoop:
        # asyncio brings OpenSSL: 6 MB resident that an agent without incidents does without.
        from agent.collection.collection_loop import Collection, CollectionLoop

        collection = Collection(self._spool, self.config, self._audit, self._surroundings)
        return CollectionLoop(self._mailbox, collection, self._tally, self.config)

    def config(self) -> CollectionConfig:
        """The limits that hold now."""
        return self._config

    def reconfigure(self, config: CollectionConfig) -> None:
        """Go by other limits from the next collection on."""
        self._config = config
