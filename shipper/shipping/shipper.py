"""Spools to store: every finished bundle once, the newest first; tombstones."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path

from agent.service.stop_signal import StopSignal
from shipper.configuration.schema import ShipperConfig
from shipper.destinations.destination import Destination
from shipper.faults import Fault, HostFault, spool_fault
from shipper.shipping.fair_queue import Cargo, FairQueue
from shipper.shipping.outbox import Outbox
from shipper.shipping.outcome import Outcome, Summary
from shipper.shipping.retries import PatientDelivery
from shipper.shipping.shipping_round import ShippingRound
from shipper.spools.inbox_keeper import InboxKeeper
from shipper.spools.sources import find_sources

# How long an interlude may be put off while one long delivery is under way.
INTERLUDE_SEC = 30.0


class Shipper:
    """Ships spools to a destination. One thread calls it; ``stop`` may be set from anywhere.

    ``on_outcome`` hears of every delivery, and of every failure, at once.
    """

    def __init__(
        self,
        config: ShipperConfig,
        destination: Destination,
        stop: StopSignal,
        on_outcome: Callable[[Outcome], None] = lambda outcome: None,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._destination = destination
        self._patient = PatientDelivery(destination, config.retry, stop)
        self._stop = stop
        self._on_outcome = on_outcome
        self._steady = steady
        self._round_ends = math.inf
        self._keeper = InboxKeeper()
        self._outboxes: dict[Path, Outbox] = {}
        self._floor = 0

    def ship_pending(
        self, news: Callable[[], bool] = lambda: False, longest_sec: float = math.inf
    ) -> Summary:
        """Ship what is pending until done, stopped, or a fault concerns all; after
        ``longest_sec`` nothing more is begun.

        ``news`` is called between deliveries, twice a minute at least; when it returns True,
        there is something new, which then takes its turn. Raises nothing but programming errors:
        faults are in the summary.
        """
        self._round_ends = self._steady() + longest_sec
        this_round = ShippingRound()
        with ThreadPoolExecutor(self._config.limits.concurrency, "deliver") as pool:
            self._ship_all(pool, this_round, news)
        summary = this_round.summary()
        self._tidy(summary)
        return summary

    def _ship_all(
        self, pool: ThreadPoolExecutor, this_round: ShippingRound, news: Callable[[], bool]
    ) -> None:
        queue, running = self._look(this_round), dict[Future[Outcome], Cargo]()
        while True:
            while queue and this_round.may_begin(len(running), self._most_at_once):
                once = this_round.in_doubt
                cargo = queue.take_longest_unfailed(_last_failure) if once else queue.take()
                self._floor = queue.floor
                this_round.begin(cargo)
                running[pool.submit(cargo.ship, once)] = cargo
            if not running:
                return
            for future in wait(running, INTERLUDE_SEC, FIRST_COMPLETED).done:
                self._add(this_round, running.pop(future), future.result())
            if news():
                queue = self._look(this_round)

    @property
    def _most_at_once(self) -> int:
        over = self._stop.is_set() or self._steady() >= self._round_ends
        return 0 if over else self._config.limits.concurrency

    def _add(self, this_round: ShippingRound, cargo: Cargo, outcome: Outcome) -> None:
        this_round.add(cargo, outcome)
        if not outcome.known:
            self._on_outcome(outcome)

    def _look(self, this_round: ShippingRound) -> FairQueue:
        """What waits now and was not begun in this round."""
        waiting: list[Cargo] = []
        try:
            self._find_outboxes()
        except OSError as error:
            this_round.hinder(spool_fault("cannot be listed", error))
        for outbox in self._outboxes.values():
            try:
                waiting += outbox.waiting()
            except HostFault as fault:  # of one source: the others go on
                this_round.hinder(fault)
        return FairQueue(this_round.not_begun(waiting), self._floor)

    def _find_outboxes(self) -> None:
        """Keep what is known of the sources that are still there. Raises OSError."""
        self._outboxes = {
            source.spool.root: self._outboxes.get(source.spool.root)
            or Outbox(source, self._destination, self._patient, self._config.prefix)
            for source in find_sources(self._config)
        }

    def _tidy(self, summary: Summary) -> None:
        """What fails is tried again after another round: nobody waits for it."""
        for outbox in self._outboxes.values():
            with contextlib.suppress(Fault, OSError):
                self._keeper.keep(outbox.source)
                if summary.fault is None:
                    outbox.abandon_uploads()


def _last_failure(cargo: Cargo) -> float:
    return cargo.outlet.last_failure(cargo.id)
