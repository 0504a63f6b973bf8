"""What the service tells by the clock: heartbeats into the store, figures for Prometheus."""

from __future__ import annotations

import logging
import math
import os
import socket
import threading
import time
from collections.abc import Callable

from agent.storage import durable_file
from shipper.configuration.schema import ShipperConfig
from shipper.destinations.destination import Destination
from shipper.faults import Fault
from shipper.moments import utc_now
from shipper.service.metrics_outlets import MetricsFile, MetricsPort
from shipper.spools.sources import Source, find_sources
from shipper.status.heartbeat import SIZE_LIMIT, heartbeat, relayed_heartbeat
from shipper.status.metrics import metrics_text
from shipper.status.status import HEARTBEAT_FILE, ShipperStatus, read_status

# A heartbeat that failed is tried again after this time, or its own interval if that is less.
RETRY_SEC = 60.0

_METRICS_REMEDY = (
    "the shipper's user must be allowed to write into the directory of metrics.file, and the unit "
    "needs it as ReadWritePaths= (systemctl edit aod-shipper)"
)

_log = logging.getLogger("aod-shipper")


class SignsOfLife:
    """Gives each sign when it is due; the metrics' port answers from the constructor on.

    The store gets this host's heartbeat, and each of an inbox's host once it is a new one. All
    methods but the port's answers: one thread. Raises HostFault when the port is taken.
    """

    def __init__(
        self,
        config: ShipperConfig,
        destination: Destination,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._destination = destination
        self._steady = steady
        self._heartbeat_due = steady() if config.heartbeat_interval_sec else math.inf
        self._file = MetricsFile(config.metrics.file) if config.metrics.file else None
        self._metrics_due = steady() if self._file else math.inf
        self._metrics_problem = ""
        self._forwarded: dict[str, int] = {}
        self._status_lock = threading.Lock()
        self._port = MetricsPort(config.metrics.port, self._text) if config.metrics.port else None

    def close(self) -> None:
        """Answer no more; to be called again does no harm."""
        port, self._port = self._port, None
        if port is not None:
            port.close()

    def due_sec(self, reachable: bool) -> float:
        """In how many seconds `give` has something to do; ``reachable``: the store is."""
        due = min(self._metrics_due, self._heartbeat_due if reachable else math.inf)
        return max(0.0, due - self._steady())

    def give(self, reachable: bool) -> Fault | None:
        """Give what is due; what kept a heartbeat from the store.

        Metrics that cannot be written are told of in the log; they hinder nothing.
        """
        if self._steady() >= self._metrics_due and self._file:
            self._metrics_due = self._steady() + self._config.scan_interval_sec
            self._write_metrics(self._file)
        if reachable and self._steady() >= self._heartbeat_due:
            return self._send_heartbeats()
        return None

    def _write_metrics(self, file: MetricsFile) -> None:
        known, self._metrics_problem = self._metrics_problem, ""
        try:
            file.write(self._text())
        except OSError as error:
            self._metrics_problem = error.strerror or str(error)
            if self._metrics_problem != known:
                reason = f"{self._config.metrics.file}: {self._metrics_problem}"
                _log.warning("no metrics: %s; remedy: %s", reason, _METRICS_REMEDY)

    def _send_heartbeats(self) -> Fault | None:
        interval_sec, fault = self._config.heartbeat_interval_sec, None
        try:
            self._destination.put_document(
                heartbeat(
                    self._status(),
                    socket.gethostname(),
                    os.uname().release,
                    self._config.prefix,
                    interval_sec,
                )
            )
            for source in find_sources(self._config):
                self._forward(source)
        except Fault as error:
            interval_sec, fault = min(interval_sec, RETRY_SEC), error
        except OSError:  # the spool cannot be listed: the shipper tells of that
            interval_sec = min(interval_sec, RETRY_SEC)
        self._heartbeat_due = self._steady() + interval_sec
        return fault

    def _forward(self, source: Source) -> None:
        """The newest heartbeat of an inbox's host, once. Raises Fault."""
        if source.host is None:
            return
        path = source.spool.root / HEARTBEAT_FILE
        try:
            changed = path.lstat().st_mtime_ns
            if changed == self._forwarded.get(source.host):
                return
            content = durable_file.read_plain(path, SIZE_LIMIT + 1)
            document = relayed_heartbeat(content, source.host, self._config.prefix, utc_now())
        except (OSError, ValueError):  # none yet, or none of ours
            return
        self._destination.put_document(document)
        self._forwarded[source.host] = changed

    def _text(self) -> str:
        return metrics_text(self._status())

    def _status(self) -> ShipperStatus:
        """One at a time, whoever asks: each takes memory by the length of the backlog."""
        with self._status_lock:
            return read_status(self._config, self._destination.description, time.time())
