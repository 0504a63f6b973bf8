"""A gate before a real S3 server: it sees every request, and may hinder it."""

from __future__ import annotations

import http.client
import select
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal
from urllib.parse import parse_qs, urlsplit


class Fate(Enum):
    """What becomes of a request that is not answered by the gate itself."""

    PASS = "passed on"
    LOSE_REQUEST = "never reaches the server"
    LOSE_REPLY = "done, and nobody hears of it"


@dataclass(frozen=True)
class Request:
    """One request as the gate saw it; ``operation`` is S3's name of it."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]

    @property
    def operation(self) -> str:
        if self.method == "PUT":
            return "UploadPart" if "partNumber" in self.query else "PutObject"
        if self.method == "POST":
            return "CreateMultipartUpload" if "uploads" in self.query else "CompleteMultipartUpload"
        return {"DELETE": "AbortMultipartUpload", "HEAD": "HeadObject"}[self.method]

    @property
    def conditional(self) -> bool:
        return "if-none-match" in self.headers


# A fate, or the gate's own answer: HTTP status, body and headers.
Decision = Fate | tuple[int, bytes] | tuple[int, bytes, dict[str, str]]


class StoreGate:
    """Passes requests on to the server at ``port``, each as ``decide`` says. Thread-safe.

    ``requests`` has what came, in order, without the trial of conditional writes (``probes`` has
    it, each as ``decide_probe`` says).
    """

    def __init__(
        self,
        port: int,
        decide: Callable[[Request], Decision] = lambda _: Fate.PASS,
        decide_probe: Callable[[Request], Decision] = lambda _: Fate.PASS,
    ) -> None:
        self.requests: list[Request] = []
        self.probes: list[Request] = []
        self.decide = decide
        self._port = port
        self._decide_probe = decide_probe
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    def __enter__(self) -> StoreGate:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> Literal[False]:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        return False

    @property
    def endpoint_url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def operations(self) -> list[str]:
        return [request.operation for request in self.requests]

    def _pass_on(
        self, handler: BaseHTTPRequestHandler, body: bytes
    ) -> tuple[int, bytes, dict[str, str]]:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        connection.putrequest(handler.command, handler.path, True, True)
        for name, value in handler.headers.items():
            connection.putheader(name, value)
        connection.endheaders()
        expects = "expect" in {name.lower() for name in handler.headers}
        if body and not (expects and self._answers_early(connection.sock)):
            connection.send(body)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return answer.status, content, dict(answer.getheaders())

    @staticmethod
    def _answers_early(server: socket.socket) -> bool:
        """Whether it refuses before it has the body: one that is sent then may end in a reset."""
        if not select.select([server], [], [], 1)[0]:
            return False
        return not server.recv(12, socket.MSG_PEEK).endswith(b" 100")

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        gate = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_PUT(self) -> None:
                url = urlsplit(self.path)
                headers = {name.lower(): value for name, value in self.headers.items()}
                query = parse_qs(url.query, keep_blank_values=True)
                request = Request(self.command, url.path, query, headers)
                body = self.rfile.read(int(headers.get("content-length", 0)))
                if url.path.endswith("/heartbeat.json"):
                    gate.probes.append(request)
                    decision = gate._decide_probe(request)
                else:
                    gate.requests.append(request)
                    decision = gate.decide(request)
                self.carry_out(decision, body)

            do_POST = do_DELETE = do_HEAD = do_PUT  # noqa: N815 - http.server's names

            def carry_out(self, decision: Decision, body: bytes) -> None:
                if decision is Fate.LOSE_REQUEST:
                    self.close_connection = True
                    return
                if isinstance(decision, tuple):
                    self.reply(*decision)
                    return
                answer = gate._pass_on(self, body)
                if decision is Fate.LOSE_REPLY:
                    self.close_connection = True
                else:
                    self.reply(*answer)

            def reply(
                self, status: int, content: bytes, headers: dict[str, str] | None = None
            ) -> None:
                headers = headers or {}
                self.send_response_only(status)
                for name, value in headers.items():
                    if name.lower() not in ("connection", "transfer-encoding", "content-length"):
                        self.send_header(name, value)
                length = str(len(content))
                if self.command == "HEAD":
                    length = headers.get("Content-Length", length)
                self.send_header("Content-Length", length)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        return Handler


def error_body(code: str) -> bytes:
    return f"<Error><Code>{code}</Code><Message>said the gate</Message></Error>".encode()
