"""Where Prometheus finds the figures: a file, a port of loopback."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from agent import __version__
from agent.storage import durable_file
from shipper.faults import HostFault

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# node_exporter runs as a user of its own, in no group of ours. The figures are for everybody;
# the shipper's umask, which keeps evidence from others, would take this right away.
FILE_MODE = 0o644

_REQUEST_TIMEOUT_SEC = 10


class MetricsFile:
    """A file for node_exporter's textfile collector, replaced as a whole. One writer."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, text: str) -> None:
        """Replace it; what a killed run left beside it goes. Raises OSError."""
        leftovers = f".{self._path.name}.*{durable_file.TEMPORARY_SUFFIX}"
        for leftover in self._path.parent.glob(leftovers):
            leftover.unlink(missing_ok=True)
        with durable_file.whole_file(self._path, FILE_MODE) as file:
            os.fchmod(file.fileno(), FILE_MODE)
            file.write(text.encode())


class MetricsPort:
    """Answers GET /metrics on 127.0.0.1 with what ``make_text`` returns; from the constructor on,
    in threads of its own, which end with the process or with `close`.

    ``make_text`` is called from any thread; its OSError is answered with status 500. Raises
    HostFault when the port is taken; 0 is any free one.
    """

    def __init__(self, port: int, make_text: Callable[[], str]) -> None:
        try:
            self._server = ThreadingHTTPServer(("127.0.0.1", port), _handler(make_text))
        except OSError as error:
            raise HostFault(
                f"metrics.port {port} cannot be used: {error.strerror}", "name another port, or 0"
            ) from error
        self._server.daemon_threads = True
        self._closing = False
        self._thread = threading.Thread(target=self._serve, name="MetricsPort", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return self._server.server_port

    def close(self) -> None:
        """Listen no more."""
        self._closing = True
        socket.create_connection(("127.0.0.1", self.port)).close()
        self._thread.join()
        self._server.server_close()

    def _serve(self) -> None:
        """Not by ``serve_forever``, which wakes twice a second to look whether it should end."""
        while not self._closing:
            self._server.handle_request()


def _handler(make_text: Callable[[], str]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = _REQUEST_TIMEOUT_SEC
        server_version = f"aod-shipper/{__version__}"
        sys_version = ""

        def do_GET(self) -> None:
            if self.path.partition("?")[0] != "/metrics":
                self._answer(404, "only /metrics is here\n")
                return
            try:
                self._answer(200, make_text())
            except OSError as error:
                self._answer(500, f"{error}\n")

        def _answer(self, status: int, text: str) -> None:
            body = text.encode()
            with contextlib.suppress(ConnectionError, TimeoutError):  # whoever asked has gone
                self.send_response(status)
                self.send_header("Content-Type", CONTENT_TYPE)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Not a line for each scrape."""

    return Handler
