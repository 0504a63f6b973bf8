"""Puts the agent together: components, their threads, their order of start and end."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from agent import __version__
from agent.collection.log_collector import LogCollector
from agent.configuration.schema import Config
from agent.detection.anomaly_watcher import AnomalyWatcher
from agent.events.event_dispatcher import EventDispatcher
from agent.events.event_source import EventSource
from agent.events.flight_recorder import FlightRecorder
from agent.service.audit import Audit
from agent.service.sd_notify import notify
from agent.service.status_server import StatusServer
from agent.service.stop_signal import StopSignal
from agent.service.thread_supervisor import ThreadSupervisor, set_thread_name
from agent.service.watchdog import Heart, Pulse, Watchdog, watchdog_interval_sec
from agent.storage.space_watcher import SpaceWatcher
from agent.storage.spool import Spool

SHUTDOWN_TIMEOUT_SEC = 60.0


class AlreadyRunningError(Exception):
    """Another agent holds the spool: two would clean up each other's unfinished work."""


class Controller:
    """One agent over one spool. Use: `start`, then `wait` or `wait_for_source`, then `shutdown`.

    ``open_source`` is handed to the dispatcher; ``source_state`` describes it for the status.
    """

    def __init__(
        self,
        config: Config,
        open_source: Callable[[StopSignal], EventSource | None],
        source_state: Callable[[], dict[str, Any]],
        runtime_directory: Path | None,
    ) -> None:
        self.stop = StopSignal()
        self.audit = Audit(config.audit.enabled)
        self.spool = Spool(config.aod_output_dir)
        self.recorder = FlightRecorder(config.watcher.flight_recorder_events)
        self.space_watcher = SpaceWatcher(self.spool, config.cleanup, self.audit)
        self.collector = LogCollector(
            self.spool,
            config.collection,
            self.audit,
            on_published=lambda bundle: self.space_watcher.wake(),
        )
        self.dispatcher = EventDispatcher(config.watcher, open_source, self.recorder, self.stop)
        self.watcher = AnomalyWatcher(
            config, self.recorder, self.dispatcher.snapshot, self.collector.submit, self.audit
        )
        self._source_state = source_state
        self._status_server = (
            StatusServer(runtime_directory, self.status) if runtime_directory else None
        )
        self._threads = self._supervisors()
        self._started = time.time()
        self._lock_fd = -1

    def start(self) -> None:
        """Take the spool, clean up after a killed run, start every component.

        Raises OSError or `AlreadyRunningError`; nothing runs then.
        """
        set_thread_name("Controller")
        self.spool.prepare()
        self._lock_fd = lock_spool(self.spool.root)
        recovered = self.spool.recover()
        if self._status_server:
            self._status_server.open()
        if recovered:
            names = ", ".join(recovered)
            self.audit.record("recovered", f"removed what a killed run left: {names}")
        for thread in self._threads.values():
            thread.start()
        self.audit.record("start", f"aod-agent {__version__} watches", version=__version__)

    def wait(self) -> None:
        """Serve until the stop signal is set."""
        notify("READY=1")
        collector = Pulse()
        watchdog = Watchdog(
            [
                Heart("EventDispatcher", self.dispatcher.ping, lambda: self.dispatcher.beats),
                Heart("AnomalyWatcher", self.watcher.ping, lambda: self.watcher.beats),
                Heart(
                    "LogCollector",
                    lambda: self.collector.ping(collector.beat),
                    lambda: collector.count,
                ),
            ]
        )
        interval_sec = watchdog_interval_sec()
        while not self.stop.wait(interval_sec):
            watchdog.tick()

    def wait_for_source(self) -> None:
        """Block until a source that ends has ended."""
        self._threads["EventDispatcher"].join()

    def shutdown(self) -> None:
        """End the components in the order of the data, so that each drains what the last gave."""
        notify("STOPPING=1")
        self.stop.set()
        self.dispatcher.wake()
        self._end("EventDispatcher")
        self.recorder.close()
        self._end("AnomalyWatcher")
        self.collector.stop()
        self._end("LogCollector")
        self.space_watcher.stop()
        self._end("SpaceWatcher")
        if self._status_server:
            self._status_server.stop()
            self._end("StatusServer")
        self.audit.record(
            "stop", "aod-agent stopped", bundles=self.collector.statistics().collected
        )
        os.close(self._lock_fd)

    def status(self) -> dict[str, Any]:
        """Everything a person or a machine asks for; from any thread."""
        dispatched = self.dispatcher.statistics()
        incidents = self.watcher.incidents
        return {
            "version": __version__,
            "pid": os.getpid(),
            "started": datetime.fromtimestamp(self._started, timezone.utc).isoformat(),
            "uptime_sec": round(time.time() - self._started, 1),
            "source": self._source_state(),
            "events": {
                "dispatched": dispatched.events,
                "examined": self.watcher.position,
                "batches": dispatched.batches,
                "sources_opened": dispatched.sources_opened,
                **self.dispatcher.snapshot().counters,
            },
            "incidents": {"opened": incidents.incidents, "suppressed": incidents.suppressed},
            "collections": vars(self.collector.statistics()),
            "cleanup": vars(self.space_watcher.statistics()),
            "bundles": vars(self.spool.counts()),
            "spool": str(self.spool.root),
            "components": {name: vars(thread.state) for name, thread in self._threads.items()},
        }

    def _supervisors(self) -> dict[str, ThreadSupervisor]:
        bodies = {
            "EventDispatcher": self.dispatcher.run,
            "AnomalyWatcher": self.watcher.run,
            "LogCollector": self.collector.run,
            "SpaceWatcher": self.space_watcher.run,
        }
        if self._status_server:
            bodies["StatusServer"] = self._status_server.run
        return {
            name: ThreadSupervisor(name, run, self.stop, self.audit) for name, run in bodies.items()
        }

    def _end(self, name: str) -> None:
        if not self._threads[name].join(SHUTDOWN_TIMEOUT_SEC):
            self.audit.record("stuck", f"{name} did not end in time", component=name)


def lock_spool(root: Path) -> int:
    """A descriptor whose lock marks ``root`` as taken. Raises `AlreadyRunningError`."""
    descriptor = os.open(
        root / ".lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640
    )
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise AlreadyRunningError(
            f"another agent uses {root}; stop it, or set another aod_output_dir"
        ) from error
    return descriptor
