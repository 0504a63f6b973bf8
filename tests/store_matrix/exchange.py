"""One request on its way through the proxy, and all that can be done to it."""

from __future__ import annotations

import contextlib
import http.client
import socket
import struct
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING

from tests.store_matrix.store_request import BEGIN, Answer, StoreRequest

if TYPE_CHECKING:
    from tests.store_matrix.proxy import StoreProxy

PATIENCE_SEC = 60
# Those that hold for one connection only, or say how long a body is.
_HOP_BY_HOP = ("connection", "keep-alive", "transfer-encoding", "content-length", "expect")
_RESET = struct.pack("ii", 1, 0)


class Exchange:
    """``request`` lies in the proxy; what becomes of it is up to its caller, who ends with `reply`,
    one of its like, or `drop`. One thread. What raises OSError or HTTPException: the store or the
    shipper has gone."""

    def __init__(
        self, request: StoreRequest, proxy: StoreProxy, handler: BaseHTTPRequestHandler
    ) -> None:
        self.request = request
        self.proxy = proxy
        self._handler = handler

    def pass_on(self) -> None:
        """As if there were no proxy."""
        self.reply(self.forward())

    def forward(self, body: bytes | None = None) -> Answer:
        """Have the store do it, with another body on demand; its answer."""
        return forward(self.proxy, self.request, body)

    def forward_half(self, then: Callable[[http.client.HTTPConnection], None]) -> Answer:
        """Send the head and half of the body, then do ``then``; what the store says to that."""
        with _sent_head(self.proxy, self.request, len(self.request.body)) as connection:
            connection.send(self.request.body[: len(self.request.body) // 2])
            then(connection)
            return _answer(connection)

    def reply(self, answer: Answer) -> None:
        """Give the shipper this whole answer."""
        self._send(_head(answer, len(answer.body)) + self._body(answer))
        if self.request.kind == BEGIN and answer.begun_upload:
            self.proxy.told.add(answer.begun_upload)

    def reply_short(self, answer: Answer) -> None:
        """Promise a longer body than there is."""
        self._send(_head(answer, len(answer.body) + 100) + self._body(answer))
        self.drop()

    def reply_half_head(self, answer: Answer) -> None:
        """The answer ends within its head."""
        head = _head(answer, len(answer.body))
        self._send(head[: len(head) // 2])
        self.drop()

    def drop(self) -> None:
        """Reset the connection."""
        self._handler.close_connection = True
        with contextlib.suppress(OSError):
            self._handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)

    def wait_for_hangup(self) -> None:
        """Until the shipper has lost its patience."""
        self._handler.close_connection = True
        self._handler.connection.settimeout(PATIENCE_SEC)
        with contextlib.suppress(ConnectionError):
            self._handler.connection.recv(1)

    def _body(self, answer: Answer) -> bytes:
        return b"" if self.request.method == "HEAD" else answer.body

    def _send(self, data: bytes) -> None:
        self._handler.wfile.write(data)


def forward(proxy: StoreProxy, request: StoreRequest, body: bytes | None = None) -> Answer:
    """Have the store do ``request``, and have the proxy look at what came of it."""
    content = request.body if body is None else body
    with _sent_head(proxy, request, len(content)) as connection:
        connection.send(content)
        answer = _answer(connection)
    proxy.look(request, answer)
    return answer


@contextlib.contextmanager
def _sent_head(
    proxy: StoreProxy, request: StoreRequest, length: int
) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection("127.0.0.1", proxy.server.port, timeout=PATIENCE_SEC)
    with contextlib.closing(connection):
        connection.putrequest(
            request.method, request.target, skip_host=True, skip_accept_encoding=True
        )
        for name, value in request.headers:
            if name.lower() not in _HOP_BY_HOP:
                connection.putheader(name, value)
        connection.putheader("Content-Length", str(length))
        connection.endheaders()
        yield connection


def _answer(connection: http.client.HTTPConnection) -> Answer:
    with connection.getresponse() as response:
        headers = tuple(
            (name, value)
            for name, value in response.getheaders()
            if name.lower() not in _HOP_BY_HOP
        )
        return Answer(response.status, headers, response.read())


def _head(answer: Answer, length: int) -> bytes:
    lines = [f"HTTP/1.1 {answer.status} {http.client.responses.get(answer.status, '')}"]
    lines += [f"{name}: {value}" for name, value in answer.headers]
    return "\r\n".join([*lines, f"Content-Length: {length}", "", ""]).encode("latin-1")
