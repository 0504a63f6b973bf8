"""The LogCollector: takes orders to collect, and works them off in a thread of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from agent.collection.collection_tally import CollectionTally, CollectorStatistics
from agent.collection.mailbox import Mailbox
from agent.collection.surroundings import Surroundings
from agent.configuration.schema import CollectionConfig
from agent.detection.anomaly import AnomalyAction
from agent.service.audit import Audit
from agent.storage.spool import Spool, SpooledBundle

if TYPE_CHECKING:
    from agent.collection.collection_loop import CollectionLoop

# Orders hold copies of the flight recorder, megabytes each.
MAX_WAITING = 16


def _ignore(_bundle: SpooledBundle) -> None:
    pass


class LogCollector:
    """Collects one bundle for every order.

    `run` is the body of one thread; every other method may be called from any thread and does
    not block. ``on_published`` is called in the collector's thread after each bundle; it must
    neither block nor raise.
    """

    def __init__(
        self,
        spool: Spool,
        config: CollectionConfig,
        audit: Audit,
        surroundings: Surroundings | None = None,
        on_published: Callable[[SpooledBundle], None] = _ignore,
    ) -> None:
        self._spool = spool
        self._config = config
        self._audit = audit
        self._surroundings = surroundings or Surroundings()
        self._on_published = on_published
        self._mailbox = Mailbox(MAX_WAITING)
        self._tally = CollectionTally(audit)

    def submit(self, action: AnomalyAction) -> bool:
        """Order a collection; False (counted, audited) when stopped or too many wait."""
        accepted = self._mailbox.put(action)
        if not accepted:
            self._tally.refused(action, f"stopped, or {MAX_WAITING} collections already wait")
        return accepted

    def stop(self) -> None:
        """Accept no more; `run` returns when every accepted order was worked off."""
        self._mailbox.close()

    def ping(self, answer: Callable[[], None]) -> None:
        """Have ``answer`` called by the collector's thread, as a sign of life."""
        self._mailbox.ping(answer)

    def statistics(self) -> CollectorStatistics:
        """A snapshot."""
        return self._tally.statistics()

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

        collection = Collection(self._spool, self._config, self._audit, self._surroundings)
        return CollectionLoop(
            self._mailbox, collection, self._tally, self._config.max_concurrent, self._on_published
        )
