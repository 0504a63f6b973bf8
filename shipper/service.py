"""The shipper as a service: one round after another, asleep in between."""

from __future__ import annotations

import contextlib

from agent.service.sd_notify import notify
from agent.service.stop_signal import StopSignal
from shipper.config_schema import ShipperConfig
from shipper.outcome import Summary
from shipper.pause import Pauses, full_jitter
from shipper.reporter import Reporter
from shipper.shipper import Shipper
from shipper.sources import find_sources
from shipper.spool_lock import ShippingLock
from shipper.spool_watch import Place, SpoolWatch, Wake

# New bundles are let into a round that is under way so often at most.
LOOK_SEC = 1.0


class Service:
    """Ships until ``stop``: at once what appears, and what stayed behind after pauses that grow.

    While nothing goes at all, new bundles do not end a pause; `aod-shipper retry` does. One
    thread.
    """

    def __init__(
        self,
        shipper: Shipper,
        config: ShipperConfig,
        stop: StopSignal,
        reporter: Reporter,
        watch: SpoolWatch,
    ) -> None:
        self._shipper = shipper
        self._config = config
        self._stop = stop
        self._reporter = reporter
        self._watch = watch
        self._pauses = Pauses(config.retry.initial_pause_sec, config.retry.max_pause_sec)
        self._looked = -LOOK_SEC

    def run(self) -> None:
        """Returns after ``stop``. Raises HostFault when another shipper has the spool."""
        with ShippingLock(self._config) as lock, contextlib.closing(self._watch):
            notify("READY=1")
            self._watch.arm(self._places())
            self._watch.wait(full_jitter(self._config.start_jitter_sec), heed_news=False)
            while not self._stop.is_set():
                self._arm()
                lock.take()  # the directory may be another one than last time
                self._reporter.begin()
                summary = self._shipper.ship_pending(self._news)
                self._rest(summary)
        notify("STOPPING=1")

    def _rest(self, summary: Summary) -> None:
        if summary.shipped or summary.tombstones or summary.complete:
            self._pauses.reset()
        rest_sec = self._config.scan_interval_sec
        if not summary.complete:
            rest_sec = min(rest_sec, self._pauses.next_sec())
        self._reporter.end(summary, rest_sec)
        deadline, wake = self._watch.now() + rest_sec, Wake.TIME
        while wake is Wake.TIME and (left := deadline - self._watch.now()) > 0:
            due = left if summary.blocked else min(left, self._reporter.due_sec())
            wake = self._watch.wait(due, heed_news=not summary.blocked)
            if wake is Wake.TIME and not summary.blocked:
                self._reporter.tick()

    def _news(self) -> bool:
        """For the time between two deliveries."""
        self._reporter.tick()
        if self._watch.now() - self._looked < LOOK_SEC or not self._watch.take_news():
            return False
        self._arm()
        return True

    def _arm(self) -> None:
        self._looked = self._watch.now()
        self._watch.arm(self._places())

    def _places(self) -> list[Place]:
        inbox = self._config.inbox
        places = [] if inbox is None else [Place(inbox, subdirectories=True)]
        with contextlib.suppress(OSError):  # then the clock wakes
            for source in find_sources(self._config):
                spool = source.spool
                missing = not spool.batches.is_dir()
                places.append(
                    Place(spool.root, subdirectories=True) if missing else Place(spool.batches)
                )
        return places
