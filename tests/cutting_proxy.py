"""A TCP proxy on loopback that counts what passes, and cuts connections where a test says so."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable


class CuttingProxy:
    """Forwards to ``port`` of 127.0.0.1.

    Connections are cut after ``upload_limit`` bytes to the server, all told, and instead of
    handing back a reply while ``swallow_reply`` says so.
    """

    def __init__(
        self,
        port: int,
        upload_limit: int | None = None,
        swallow_reply: Callable[[], bool] = lambda: False,
    ) -> None:
        self._target = ("127.0.0.1", port)
        self._upload_limit = upload_limit
        self._swallow_reply = swallow_reply
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self.connections = 0
        self.uploaded = 0
        self.cuts = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> CuttingProxy:
        return self

    def __exit__(self, *_: object) -> None:
        for connection in [self._listener, *self._open]:
            _cut(connection)
            connection.close()

    @property
    def port(self) -> int:
        port: int = self._listener.getsockname()[1]
        return port

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target)
            except OSError:
                return
            self.connections += 1
            self._open |= {client, server}
            for pump in (self._pump_up, self._pump_down):
                threading.Thread(target=pump, args=(client, server), daemon=True).start()

    def _pump_up(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(1 << 16):
                with self._lock:
                    self.uploaded += len(data)
                if self._upload_limit is not None and self.uploaded > self._upload_limit:
                    self.cuts += 1
                    break
                server.sendall(data)
        _cut(client)
        _cut(server)

    def _pump_down(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(1 << 16):
                if self._swallow_reply():
                    self.cuts += 1
                    break
                client.sendall(data)
        _cut(client)
        _cut(server)


def _cut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
