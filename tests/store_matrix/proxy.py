"""A proxy on loopback between the shipper and a store, which spoils what it is told to spoil."""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from agent.storage.spool import ARCHIVE
from tests.minio_server import MinioServer
from tests.store_matrix.certificates import Certificates
from tests.store_matrix.exchange import PATIENCE_SEC, Exchange, forward
from tests.store_matrix.store_request import MANIFEST, Answer, StoreRequest, kind_of_key

# Gets a new connection; what it returns, encrypted, is served, and None is not.
Handshake = Callable[[socket.socket], socket.socket | None]


@dataclass(frozen=True)
class Fault:
    """``apply`` is what becomes of a request for which ``suits`` holds, ``end`` what comes when all
    is over. ``read_timeout_sec`` is the shipper's patience; ``tls``: only an encrypted connection
    has it."""

    name: str
    apply: Callable[[Exchange], None]
    suits: Callable[[StoreRequest], bool] = lambda request: True
    end: Callable[[StoreProxy], None] = lambda proxy: None
    read_timeout_sec: float = 30.0
    tls: bool = False


class Injection:
    """``fault`` for the first request called ``label`` and what comes next, ``times`` in all."""

    def __init__(self, fault: Fault, label: str, times: int = 1) -> None:
        self.fault = fault
        self.hits = 0
        self._label = label
        self._times = times

    def hit(self, request: StoreRequest) -> bool:
        """Whether the turn of this request has come; it counts then."""
        hit = not self.over and (self.hits > 0 or request.label == self._label)
        self.hits += hit
        return hit

    @property
    def over(self) -> bool:
        """Whether all has happened."""
        return self.hits >= self._times


class StoreProxy:
    """Serves on `port`, in as many threads as there are connections, until it is left.

    ``seen`` are the requests, ``told`` the ids of begun uploads of which the shipper learnt, and
    ``broken`` what must never be, even for a moment.
    """

    def __init__(self, server: MinioServer, certificates: Certificates | None = None) -> None:
        self.server = server
        self._certificates = certificates
        self._spoilt_handshakes: list[Handshake] = []
        self._late: list[StoreRequest] = []
        self._lock = threading.Lock()
        self._listener = _Listener(self)
        self._thread = threading.Thread(target=self._listener.serve_forever, args=(0.01,))
        self.arm(None)

    def __enter__(self) -> StoreProxy:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown()
        self._thread.join()
        self._listener.server_close()

    @property
    def endpoint_url(self) -> str:
        """For the shipper."""
        scheme = "https" if self._certificates else "http"
        return f"{scheme}://127.0.0.1:{self._listener.server_port}"

    def arm(self, injection: Injection | None) -> None:
        """Forget what was; the next run is to meet ``injection``."""
        self._injection = injection
        self._spoilt_handshakes.clear()
        self.seen: list[StoreRequest] = []
        self.told: set[str] = set()
        self.broken: list[str] = []

    def disarm(self) -> None:
        """End what has not ended yet: the store runs, and has got all that was late."""
        injection, self._injection = self._injection, None
        if injection is not None and not injection.over:
            injection.fault.end(self)
        self._spoilt_handshakes.clear()
        self._forward_late()

    def spoil_next_handshake(self, handshake: Handshake) -> None:
        """Once, instead of the right one."""
        self._spoilt_handshakes.append(handshake)

    def show_untrusted_certificate(self, connection: socket.socket) -> socket.socket:
        """A handshake: somebody else's."""
        assert self._certificates is not None
        return self._certificates.untrusted.wrap_socket(connection, server_side=True)

    def delay(self, request: StoreRequest) -> None:
        """The store gets it after the next one."""
        self._late.append(request)

    def handle(self, exchange: Exchange) -> None:
        """Called for each request."""
        with self._lock:
            late, injection = bool(self._late), self._injection
            self.seen.append(exchange.request)
            hit = injection is not None and injection.hit(exchange.request)
        fault = injection.fault if injection is not None and hit else None
        try:
            if fault is not None and fault.suits(exchange.request):
                fault.apply(exchange)
            else:
                exchange.pass_on()
        except (OSError, http.client.HTTPException):
            exchange.drop()
        if injection is not None and hit and injection.over:
            with self._lock:  # what comes meanwhile waits
                injection.fault.end(self)
        if late:
            self._forward_late()

    def look(self, request: StoreRequest, answer: Answer) -> None:
        """When a manifest is in the store, so must its archive be."""
        if request.method != "PUT" or answer.status != 200:
            return
        if kind_of_key(request.key) != "manifest":
            return
        archive = request.key.removesuffix(MANIFEST) + ARCHIVE
        try:
            self.server.client.head_object(Bucket=request.bucket, Key=archive)
        except ClientError:
            self.broken.append(f"a manifest was there before its archive: {request.label}")
        except BotoCoreError:  # another thread's request has killed the store
            return

    def secure(self, connection: socket.socket) -> socket.socket | None:
        """The connection as it is served; None when its handshake is spoilt."""
        if self._certificates is None:
            return connection
        connection.settimeout(PATIENCE_SEC)
        with contextlib.suppress(OSError):  # the shipper does not trust it
            if self._spoilt_handshakes:
                return self._spoilt_handshakes.pop()(connection)
            return self._certificates.trusted.wrap_socket(connection, server_side=True)
        return None

    def _forward_late(self) -> None:
        with self._lock:
            late, self._late = self._late, []
        for request in late:
            with contextlib.suppress(OSError, http.client.HTTPException):
                forward(self, request)


class _Listener(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, proxy: StoreProxy) -> None:
        super().__init__(("127.0.0.1", 0), _handler_for(proxy))
        self._proxy = proxy

    def finish_request(self, request: Any, client_address: Any) -> None:
        secured = self._proxy.secure(request)
        if secured is not None:
            with contextlib.closing(secured), contextlib.suppress(ssl.SSLError, ConnectionError):
                super().finish_request(secured, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        self._proxy.broken.append(f"the harness failed: {sys.exc_info()[1]!r}")

    def shutdown_request(self, request: Any) -> None:
        """Without a farewell: a reset must stay one."""
        self.close_request(request)


def _handler_for(proxy: StoreProxy) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _handle(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = tuple(self.headers.items())
            request = StoreRequest(self.command, self.path, headers, body)
            proxy.handle(Exchange(request, proxy, self))

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _handle  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    return Handler
