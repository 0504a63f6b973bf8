"""What the shipper's tests share: bundles in a spool, a shipper, stores that misbehave."""

from __future__ import annotations

import hashlib
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from agent.service.stop_signal import StopSignal
from agent.storage import durable_file
from agent.storage.spool import ARCHIVE, DONE, Spool, SpooledBundle, as_bytes
from agent.storage.ulid import new_ulid
from shipper.configuration.schema import (
    DirectoryDestination,
    LimitsConfig,
    RetryConfig,
    ShipperConfig,
)
from shipper.destinations.delivery import Delivery, read_delivery
from shipper.destinations.destination import Destination
from shipper.destinations.directory_destination import DirectoryBucket
from shipper.destinations.document import Document
from shipper.destinations.finding import Finding
from shipper.faults import Fault
from shipper.service.reporter import Reporter
from shipper.service.service import Service
from shipper.service.signs_of_life import SignsOfLife
from shipper.shipping.outcome import Outcome
from shipper.shipping.shipper import Shipper
from shipper.spools.spool_watch import SpoolWatch
from shipper.status.shipper_state import StateFile

QUICK = RetryConfig(3, 0.001, 0.01, 0.001, 0.01)
NOON = 1_767_268_800_000  # 2026-01-01 12:00 UTC in milliseconds
DEADLINE_SEC = 60
PROBE_KEY = "filer-1/heartbeat.json"


def new_spool(root: Path) -> Spool:
    spool = Spool(root)
    spool.prepare()
    return spool


def add_bundle(
    spool: Spool,
    content: bytes = b"evidence",
    time_ms: int | None = None,
    bundle_id: str = "",
    **changes: Any,
) -> SpooledBundle:
    """A finished bundle; ``changes`` replace members of its manifest."""
    bundle_id = bundle_id or new_ulid(time_ms)
    final = spool.path(bundle_id, ARCHIVE)
    temporary = durable_file.temporary_beside(final)
    with os.fdopen(durable_file.create_exclusive(temporary), "wb") as file:
        file.write(content)
    manifest = {
        "id": bundle_id,
        "host": "filer-1",
        "anomaly": "slow_reads",
        "type": "latency",
        "created": "2026-01-01T12:00:00+00:00",
        "archive": {
            "file": final.name,
            "size": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
        },
    }
    return spool.publish(bundle_id, temporary, {**manifest, **changes})


def put_in_spool(spool: Spool, numbers: Iterable[int], host: str = "filer-1") -> None:
    """Many finished bundles, one a second from `NOON` on, without the syncs of `add_bundle`."""
    content = b"evidence"
    archive = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    for number in numbers:
        bundle_id = new_ulid(NOON + 1000 * number)
        final = spool.path(bundle_id, ARCHIVE)
        final.write_bytes(content)
        manifest = {"id": bundle_id, "host": host, "anomaly": "slow_reads"}
        document = {**manifest, "archive": {"file": final.name, **archive}}
        spool.path(bundle_id, DONE).write_bytes(as_bytes(document))


def read_whole(delivery: Delivery) -> bytes:
    """What a store gets; raises BundleFault when it is not what was promised."""
    with delivery.open_archive() as archive:
        return archive.read()


def delivery_of(bundle: SpooledBundle, prefix: str = "") -> Delivery:
    return read_delivery(bundle, prefix)


def make_shipper(
    spool: Spool,
    destination: Destination,
    stop: StopSignal | None = None,
    on_outcome: Callable[[Outcome], None] = lambda outcome: None,
    retry: RetryConfig = QUICK,
    concurrency: int = 1,
) -> Shipper:
    """One delivery at a time unless told otherwise, so that tests know the order."""
    unused = DirectoryDestination(Path("/nonexistent"))
    config = ShipperConfig(spool.root, unused, retry=retry, limits=LimitsConfig(concurrency))
    return Shipper(config, destination, stop or StopSignal(), on_outcome)


def serve(spool: Spool, destination: Destination, stop: StopSignal, **changes: Any) -> None:
    """The service, until ``stop``; ``changes`` replace settings, which are quick ones."""
    quick = {"scan_interval_sec": 0.01, "start_jitter_sec": 0, "heartbeat_interval_sec": 0}
    settings = {**quick, "retry": QUICK, **changes}
    config = ShipperConfig(spool.root, DirectoryDestination(Path("/nonexistent")), **settings)
    reporter = Reporter(StateFile(spool.batches))
    shipper = Shipper(config, destination, stop, reporter.deliver)
    signs = SignsOfLife(config, destination)
    Service(shipper, config, stop, reporter, signs, SpoolWatch(stop.fd)).run()


def write_key(path: Path, *lines: str) -> Path:
    """A credentials file as an administrator makes it: closed to others."""
    path.write_text("\n".join(["[default]", *lines, ""]))
    path.chmod(0o600)
    return path


def wait_for(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_SEC
    while not condition():
        assert time.monotonic() < deadline, f"in vain: {what}"
        time.sleep(0.01)


def shipper_command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "shipper.cli", *map(str, arguments)]


def run_shipper(
    *arguments: str | Path, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        shipper_command(*arguments),
        env={**os.environ, "AWS_EC2_METADATA_DISABLED": "true", **(env or {})},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


class FaultyDestination:
    """Raises the given faults, one at each delivery, before it hands on to a directory."""

    description = "directory under test"

    def __init__(self, root: Path, *faults: Fault | None) -> None:
        self._directory = DirectoryBucket(root)
        self._faults = list(faults)
        self.seen: list[str] = []

    def deliver(self, delivery: Delivery) -> str:
        self.seen.append(delivery.id)
        fault = self._faults.pop(0) if self._faults else None
        if fault is not None:
            raise fault
        self._directory.deliver(delivery)
        return self.description

    def put_document(self, document: Document) -> None:
        self.seen.append(document.key)
        fault = self._faults.pop(0) if self._faults else None
        if fault is not None:
            raise fault
        self._directory.put_document(document)

    def check(self) -> Iterator[Finding]:
        return self._directory.check()

    def abandon(self, note: Path) -> None:
        self._directory.abandon(note)


class ScriptedStore:
    """An S3 endpoint that answers each request as ``answer(number, method, path)`` says.

    An answer is (HTTP status, error code), or (200, ETag); ``requests`` lists what was asked. The
    trial of conditional writes is in neither: it is answered as ``conditional`` says.
    """

    def __init__(
        self,
        answer: Callable[[int, str, str], tuple[int, str]],
        tls: ssl.SSLContext | None = None,
        conditional: tuple[int, str] = (412, "PreconditionFailed"),
    ) -> None:
        self.requests: list[tuple[str, str]] = []
        self._conditional = conditional
        self._scheme = "https" if tls else "http"
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler(answer))
        if tls:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    def __enter__(self) -> ScriptedStore:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def endpoint_url(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self._server.server_port}"

    def _handler(
        self, answer: Callable[[int, str, str], tuple[int, str]]
    ) -> type[BaseHTTPRequestHandler]:
        requests, conditional = self.requests, self._conditional

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_PUT(self) -> None:
                self._handle()

            def do_POST(self) -> None:
                self._handle()

            def do_HEAD(self) -> None:
                self._handle()

            def do_DELETE(self) -> None:
                self._handle()

            def _handle(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                path = self.path.partition("?")[0]
                if path.endswith(PROBE_KEY):
                    status, code = conditional
                else:
                    requests.append((self.command, path))
                    status, code = answer(len(requests), self.command, path)
                body = b"" if status == 200 else f"<Error><Code>{code}</Code></Error>".encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                if status == 200 and code:
                    self.send_header("ETag", code)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        return Handler


class TcpGate:
    """Forwards to a server until the ``hold``-th PUT request, which never gets there; heartbeats
    are not counted."""

    def __init__(self, port: int, hold: int) -> None:
        self._target = ("127.0.0.1", port)
        self._hold = hold
        self._puts = 0
        self._connections: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.held = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> TcpGate:
        return self

    def __exit__(self, *_: object) -> None:
        for connection in [self._listener, *self._connections]:
            connection.close()

    @property
    def endpoint_url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(self._target)
            self._connections += [client, server]
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(1 << 16):
                self._puts += data.startswith(b"PUT ") and not _is_heartbeat(data)
                if self._puts >= self._hold:
                    self.held.set()
                    return
                sink.sendall(data)
        except OSError:
            return


def _is_heartbeat(request: bytes) -> bool:
    return b"/heartbeat.json" in request.partition(b"\r\n")[0]
