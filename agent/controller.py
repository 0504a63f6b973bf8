"""Puts the agent together: components, their threads, their order of start and end."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from agent import __version__
from agent.collection.collection_tally import Listener
from agent.collection.evidence_files import iso_time
from agent.collection.log_collector import LogCollector
from agent.collection.surroundings import Surroundings
from agent.collection.unfinished_bundles import UnfinishedBundles
from agent.configuration.schema import Config
from agent.detection.anomaly_watcher import AnomalyWatcher
from agent.detection.incident_store import IncidentStore
from agent.detection.on_demand import CaptureRequest, OnDemand
from agent.events.event_dispatcher import EventDispatcher
from agent.events.event_source import EventSource
from agent.events.flight_recorder import FlightRecorder
from agent.kernel.kernel_filter import kernel_settings
from agent.service.audit import Audit
from agent.service.sd_notify import notify
from agent.service.status_server import Order, StatusServer
from agent.service.stop_signal import StopSignal
from agent.service.thread_supervisor import ThreadSupervisor
from agent.service.watchdog import Heart, Pulse, Watchdog, watchdog_interval_sec
from agent.storage.space_watcher import SpaceWatcher
from agent.storage.spool import ARCHIVE, Spool
from agent.storage.spool_listing import some_of

# All of a shutdown; systemd's TimeoutStopSec is longer.
SHUTDOWN_SEC = 80.0
# What of this the way to detection may take: the rest is for what was found already.
DETECTION_SEC = 30.0
# Beside the spool's folders; the shipper has no business with it.
INCIDENTS_FILE = "incidents.json"
# How often a wait for a component looks whether it was interrupted.
INTERRUPT_SEC = 0.1


class AlreadyRunningError(Exception):
    """Another agent holds the spool: two would clean up each other's unfinished work."""


class Controller:
    """One agent over one spool. Use: `start`, then `wait` or `drain`, then `shutdown`.

    ``open_source`` is handed to the dispatcher; ``source_state`` describes it for the status.
    ``replay``: the source can wait, so detection waits while too many collections do, instead of
    refusing more; and what happens in it has nothing to do with what happened on this host before.
    """

    def __init__(
        self,
        config: Config,
        open_source: Callable[[StopSignal], EventSource | None],
        source_state: Callable[[], dict[str, Any]],
        runtime_directory: Path | None,
        replay: bool = False,
    ) -> None:
        self.stop = StopSignal()
        self.audit = Audit(config.audit.enabled)
        self.spool = Spool(config.aod_output_dir)
        self.recorder = FlightRecorder(config.watcher.flight_recorder_events)
        self.space_watcher = SpaceWatcher(self.spool, config.cleanup, self.audit)
        self._surroundings = Surroundings(
            room_for_bundle=self.space_watcher.free_space.room_for_bundle
        )
        self.collector = LogCollector(
            self.spool,
            config.collection,
            self.audit,
            self._surroundings,
            listener=Listener(
                published=lambda bundle: self.space_watcher.wake(),
                failed=lambda order: self.watcher.incidents.collection_failed(order.id),
            ),
        )
        self.dispatcher = EventDispatcher(config.watcher, open_source, self.recorder, self.stop)
        collect = self.collector.submit_waiting if replay else self.collector.submit
        self._incident_store = None if replay else self._store_of_incidents()
        self.watcher = AnomalyWatcher(config, self.recorder, self.dispatcher, collect, self.audit)
        self._on_demand = OnDemand(self.recorder, self.dispatcher)
        self._actions = config.watcher.actions
        self._last_capture = ""
        self._source_state = source_state
        self._status_server = (
            StatusServer(runtime_directory, self.status) if runtime_directory else None
        )
        self._threads = self._supervisors()
        self._started = time.time()
        self._started_monotonic = time.monotonic()
        self._lock_fd = -1

    def obey(self, orders: Mapping[str, Order]) -> None:
        """What root may have done over the status socket, by name; before `start`."""
        if self._status_server:
            self._status_server.orders = orders

    def start(self) -> None:
        """Take the spool, clean up after a killed run, start every component.

        Raises OSError or `AlreadyRunningError`; nothing runs then.
        """
        self.spool.prepare()
        self._lock_fd = lock_spool(self.spool.root)
        self._recover()
        if self._incident_store:
            self.watcher.incidents.resume(self._incident_store.load(), self._incident_store.save)
        if self._status_server:
            self._status_server.open()
        for thread in self._threads.values():
            thread.start()
        self.audit.record("start", f"aod-agent {__version__} watches", version=__version__)

    def _recover(self) -> None:
        """Bring to an end what a killed run left."""
        leftovers = self.spool.recover()
        if leftovers:
            removed = some_of(leftovers)
            self.audit.record("recovered", f"removed what a killed run left: {removed}")
        foreign = self.spool.foreign_in_staging()
        if foreign:
            left = f"left alone what is none of the agent's in {self.spool.staging}"
            self.audit.record("recovered", f"{left}: {some_of(foreign)}")
        if not self.spool.staging_directories():
            return
        unfinished = UnfinishedBundles(self.spool, self._surroundings, self.collector.config)
        for one in unfinished.recover():
            message = f"{one.fate} the bundle {one.bundle_id} of a killed run: {one.why}"
            self.audit.record("recovered", message, bundle=one.bundle_id, fate=one.fate)

    def wait(self) -> None:
        """Serve until the stop signal is set."""
        notify("READY=1")
        collector = Pulse()
        watchdog = Watchdog(
            [
                Heart(
                    "EventDispatcher",
                    self.dispatcher.wake,
                    lambda: self.dispatcher.beats,
                    lambda: self.dispatcher.dispatching,
                ),
                Heart(
                    "AnomalyWatcher",
                    self.watcher.ping,
                    lambda: self.watcher.beats,
                    lambda: self._runs("AnomalyWatcher"),
                ),
                Heart(
                    "LogCollector",
                    lambda: self.collector.ping(collector.beat),
                    lambda: collector.count,
                    lambda: self._runs("LogCollector"),
                ),
            ]
        )
        interval_sec = watchdog_interval_sec()
        while not self.stop.wait(interval_sec):
            watchdog.tick()

    def drain(self, interrupt: StopSignal) -> None:
        """Block until a source that ends has ended and all it gave is worked off in full.

        ``interrupt`` ends this early; what is not done by then is for `shutdown`.
        """
        for name, close_next in (
            ("EventDispatcher", self.recorder.close),
            ("AnomalyWatcher", self.collector.drain),
            ("LogCollector", self.space_watcher.stop),
        ):
            while not self._threads[name].join(INTERRUPT_SEC):
                if interrupt.is_set():
                    self.collector.stop()  # also for detection, which may be waiting for it
                    return
            close_next()

    def shutdown(self) -> bool:
        """End the components in the order of the data, so that each takes what the last gave; a
        second call changes nothing.

        Every incident found gets its bundle; for the sake of time, actions are cut. Whether all
        ended within `SHUTDOWN_SEC`; the audit says what did not.
        """
        notify("STOPPING=1")
        self.stop.set()
        started = time.monotonic()
        detected, deadline = started + DETECTION_SEC, started + SHUTDOWN_SEC
        in_time = [
            self._end("EventDispatcher", self.dispatcher.wake, detected),
            self._end("AnomalyWatcher", self.recorder.close, detected),
            self._end("LogCollector", self.collector.stop, deadline),
            self._end("SpaceWatcher", self.space_watcher.stop, deadline),
        ]
        if self._status_server:
            in_time.append(self._end("StatusServer", self._status_server.stop, deadline))
        self.audit.record(
            "stop", "aod-agent stopped", bundles=self.collector.statistics().collected
        )
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1
        return all(in_time)

    def reconfigure(self, config: Config) -> None:
        """Go by ``config`` from now on, without a gap; from any thread.

        What it says of the spool and of the recorder's size stays as it was at the start.
        """
        self.audit.enabled = config.audit.enabled
        self._actions = config.watcher.actions
        self.dispatcher.apply(kernel_settings(config.guardian.anomalies.values()))
        self.dispatcher.reconfigure(config.watcher)
        self.watcher.reconfigure(config)
        self.collector.reconfigure(config.collection)
        self.space_watcher.reconfigure(config.cleanup)

    def capture(self, request: CaptureRequest) -> dict[str, Any]:
        """Order a bundle without a trigger, with what the watcher may collect; its
        `capture_state`, or state ``refused`` while another one is under way."""
        last = self._last_capture
        if last and self.capture_state(last)["state"] == "collecting":
            return {"state": "refused", "error": f"another capture is under way: {last}"}
        order = self._on_demand.order(request, self._actions)
        self._last_capture = order.id
        self.audit.record("capture", order.trigger.reason, bundle=order.id, label=order.label)
        self.collector.submit(order)
        return self.capture_state(order.id)

    def capture_state(self, bundle_id: str) -> dict[str, Any]:
        """``state``: collecting, done (with ``path``) or failed (with ``error``); and how many
        SMB commands there have been since the probes were attached."""
        state: dict[str, Any] = {"id": bundle_id, "state": "collecting"}
        failure = self.collector.failure(bundle_id)
        if bundle_id != self._last_capture:
            state.update(state="failed", error="the agent does not know this capture")
        elif failure:
            state.update(state="failed", error=failure)
        elif self.spool.was_made(bundle_id):
            state.update(state="done", path=str(self.spool.path(bundle_id, ARCHIVE)))
        return {**state, "commands": int(self.dispatcher.snapshot().histograms.sum())}

    def status(self) -> dict[str, Any]:
        """Everything a person or a machine asks for; from any thread."""
        dispatched, snapshot = self.dispatcher.statistics(), self.dispatcher.snapshot()
        return {
            "version": __version__,
            "pid": os.getpid(),
            "started": datetime.fromtimestamp(self._started, timezone.utc).isoformat(),
            "uptime_sec": round(time.monotonic() - self._started_monotonic, 1),
            "source": self._source(),
            "events": {
                "dispatched": dispatched.events,
                "examined": self.watcher.position,
                "batches": dispatched.batches,
                "sources_opened": dispatched.sources_opened,
                "commands": int(snapshot.histograms.sum()),
                **snapshot.counters,
            },
            "incidents": self._incidents(),
            "collections": vars(self.collector.statistics()),
            "cleanup": vars(self.space_watcher.statistics()),
            "bundles": vars(self.spool.counts()),
            "disk": vars(self.space_watcher.free_space.look()),
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

    def _store_of_incidents(self) -> IncidentStore:
        path = self.spool.root / INCIDENTS_FILE
        return IncidentStore(path, self.spool.is_made_or_begun)

    def _incidents(self) -> dict[str, Any]:
        incidents, offset_ns = self.watcher.incidents, time.time_ns() - time.monotonic_ns()
        return {
            "opened": incidents.opened,
            "suppressed": incidents.suppressed,
            "ended": incidents.ended,
            "open": [
                {
                    "id": incident.id,
                    "cause": incident.cause,
                    "opened": iso_time(incident.opened_ns + offset_ns),
                    "rules": dict(incident.rules),
                    "bundles": list(incident.bundles),
                }
                for incident in incidents.open()
            ],
        }

    def _runs(self, name: str) -> bool:
        return self._threads[name].state.state == "running"

    def _source(self) -> dict[str, Any]:
        """The source's own words, which it cannot take back when it breaks."""
        state = self._source_state()
        if state.get("state") == "watching" and not self.dispatcher.dispatching:
            return {**state, "state": "restarting"}
        return state

    def _end(self, name: str, end: Callable[[], None], deadline: float) -> bool:
        """Have a component end; whether it does before the monotonic clock shows ``deadline``."""
        end()
        in_time = self._threads[name].join(max(0.0, deadline - time.monotonic()))
        if not in_time:
            self.audit.record("stuck", f"{name} did not end in time", component=name)
        return in_time


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
