"""The shipper as a service: one round after another, asleep in between."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from agent.service.sd_notify import notify
from agent.service.stop_signal import StopSignal
from shipper.configuration.schema import ShipperConfig
from shipper.service.reporter import Reporter
from shipper.service.signs_of_life import SignsOfLife
from shipper.shipping.outcome import Summary
from shipper.shipping.pause import Pauses, full_jitter
from shipper.shipping.shipper import Shipper
from shipper.spools.sources import find_sources
from shipper.spools.spool_lock import ShippingLock
from shipper.spools.spool_watch import Place, SpoolWatch, Wake

# New bundles are let into a round that is under way so often at most.
LOOK_SEC = 1.0
# Where new ones never end, what was passed over is tried again, and inboxes are kept, so often.
ROUND_SEC = 600.0


@dataclass(eq=False)
class Service:
    """Ships until ``stop``: at once what appears, and what stayed behind after pauses that grow.

    While nothing goes at all, new bundles do not end a pause; `aod-shipper retry` does. One
    thread.
    """

    shipper: Shipper
    config: ShipperConfig
    stop: StopSignal
    reporter: Reporter
    signs: SignsOfLife
    watch: SpoolWatch

    def __post_init__(self) -> None:
        retry = self.config.retry
        self._pauses = Pauses(retry.initial_pause_sec, retry.max_pause_sec)
        self._looked = -LOOK_SEC

    def run(self) -> None:
        """Returns after ``stop``. Raises HostFault when another shipper has the spool."""
        with (
            contextlib.closing(self.watch),
            contextlib.closing(self.signs),
            ShippingLock(self.config) as lock,
        ):
            self.reporter.start()
            notify("READY=1")
            self.watch.arm(self._places())
            self.watch.wait(full_jitter(self.config.start_jitter_sec), heed_news=False)
            while not self.stop.is_set():
                self._arm()
                lock.take()  # the directory may be another one than last time
                self.reporter.begin()
                summary = self.shipper.ship_pending(self._news, ROUND_SEC)
                self._rest(summary)
        notify("STOPPING=1")

    def _rest(self, summary: Summary) -> None:
        if summary.shipped or summary.tombstones or summary.complete:
            self._pauses.reset()
        rest_sec = 0.0 if summary.unfinished else self.config.scan_interval_sec
        if not summary.complete:
            rest_sec = min(rest_sec, self._pauses.next_sec())
        self.reporter.end(summary, rest_sec)
        deadline, wake = self.watch.now() + rest_sec, Wake.TIME
        while wake is Wake.TIME and (left := deadline - self.watch.now()) > 0:
            self._give_signs(reachable=not summary.blocked)
            due = min(left, self.signs.due_sec(reachable=not summary.blocked))
            wake = self.watch.wait(due, heed_news=not summary.blocked)

    def _news(self) -> bool:
        """For the time between two deliveries."""
        self.reporter.tick()
        self._give_signs(reachable=self.reporter.store_works)
        if self.watch.now() - self._looked < LOOK_SEC or not self.watch.take_news():
            return False
        self._arm()
        return True

    def _give_signs(self, *, reachable: bool) -> None:
        if self.signs.due_sec(reachable) == 0:
            self.reporter.heard_of_store(self.signs.give(reachable))

    def _arm(self) -> None:
        self._looked = self.watch.now()
        self.watch.arm(self._places())

    def _places(self) -> list[Place]:
        inbox = self.config.inbox
        places = [] if inbox is None else [Place(inbox, subdirectories=True)]
        with contextlib.suppress(OSError):  # then the clock wakes
            for source in find_sources(self.config):
                spool = source.spool
                missing = not spool.batches.is_dir()
                places.append(
                    Place(spool.root, subdirectories=True) if missing else Place(spool.batches)
                )
        return places
