"""The running agent's status on a Unix socket, and the orders it takes: nothing is written while
nobody asks.

A client sends the name of an order, perhaps a space and a JSON object with its arguments, and
closes its end for writing; the answer is one JSON document. Nothing asks for the status.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import struct
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

log = logging.getLogger("aod.status")

Status = dict[str, Any]
Arguments = Mapping[str, Any]
Order = Callable[[Arguments], Status]

SOCKET_NAME = "agent.sock"
SOCKET_MODE = 0o660
CLIENT_TIMEOUT_SEC = 5.0
ORDER_TIMEOUT_SEC = 30.0
REQUEST_LIMIT = 4096
# A client of ours sends its request at once; another must not keep the next one waiting.
REQUEST_SEC = 1.0
DEFAULT_RUNTIME_DIRECTORY = Path("/run/aod")


class NotRunningError(Exception):
    """No agent answers on the socket."""


class StatusFaultError(Exception):
    """The agent answers, but cannot tell its status."""


class SocketTakenError(OSError):
    """Another agent answers on the socket."""


def runtime_directory() -> Path:
    """Where the socket lies: systemd's choice, else /run/aod."""
    return Path(os.environ.get("RUNTIME_DIRECTORY") or DEFAULT_RUNTIME_DIRECTORY)


class StatusServer:
    """Answers every connection with one JSON document. `run` is a thread's body.

    ``orders`` are obeyed for root, and for the agent's own user; the group may ask for the status.
    When ``status`` or an order raises, the document is ``{"error": ...}``.
    """

    def __init__(self, directory: Path, status: Callable[[], Status]) -> None:
        self._path = directory / SOCKET_NAME
        self._status = status
        self.orders: Mapping[str, Order] = {}
        self._stopping = False
        self._bound: tuple[int, int] | None = None
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)

    def open(self) -> None:
        """Bind the socket; one that a killed agent left is replaced.

        Raises OSError; `SocketTakenError` when another agent answers there.
        """
        self._path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        if _answers(self._path):
            raise SocketTakenError(
                f"another agent answers on {self._path}; give the second one another runtime "
                "directory: RUNTIME_DIRECTORY=/run/aod-2"
            )
        self._path.unlink(missing_ok=True)
        self._listener.bind(str(self._path))
        self._bound = _identity(self._path)
        self._path.chmod(SOCKET_MODE)
        self._listener.listen(8)

    def run(self) -> None:
        """Serve until `stop`."""
        while not self._stopping:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                if self._stopping:
                    return
                raise
            with connection:
                connection.settimeout(CLIENT_TIMEOUT_SEC)
                self._answer(connection)

    def stop(self) -> None:
        """End `run` and remove the socket, if it is still the one that `open` bound."""
        self._stopping = True
        try:
            self._listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            log.debug("status socket was not listening")
        # Before the close: until then no other socket can have this identity.
        if self._bound and self._bound == _identity(self._path):
            self._path.unlink(missing_ok=True)
        self._listener.close()

    def _answer(self, connection: socket.socket) -> None:
        try:
            connection.sendall(self._document(connection).encode() + b"\n")
        except OSError as error:
            log.debug("status client went away: %s", error)

    def _document(self, connection: socket.socket) -> str:
        name, _, arguments = _request(connection).partition(" ")
        if name and name not in self.orders:
            return json.dumps({"error": f"no such order: {name}"})
        if name and _user(connection) not in (0, os.geteuid()):
            return json.dumps({"error": f"{name}: only root may order that"})
        try:
            told = self.orders[name](json.loads(arguments or "{}")) if name else self._status()
            return json.dumps(told)
        except Exception as fault:
            log.exception("no answer to %r", name or "status")
            return json.dumps({"error": f"{type(fault).__name__}: {fault}"})


def query_status(directory: Path) -> Status:
    """Ask the running agent. Raises `NotRunningError` or `StatusFaultError`."""
    status = _ask(directory, b"", CLIENT_TIMEOUT_SEC)
    if "error" in status:
        raise StatusFaultError(f"the agent runs, but cannot tell its status: {status['error']}")
    return status


def give_order(directory: Path, order: str, arguments: Arguments | None = None) -> Status:
    """Have the running agent do something; its answer, with a key ``error`` when it did not.

    Raises `NotRunningError`.
    """
    request = f"{order} {json.dumps(arguments or {})}".encode()
    return _ask(directory, request, ORDER_TIMEOUT_SEC)


def _ask(directory: Path, request: bytes, timeout_sec: float) -> Status:
    path = directory / SOCKET_NAME
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(timeout_sec)
            connection.connect(str(path))
            connection.sendall(request)
            connection.shutdown(socket.SHUT_WR)
            with connection.makefile("rb") as answer:
                document = json.loads(answer.read())
    except PermissionError as error:
        raise NotRunningError(f"{path}: permission denied; run as root or in group aod") from error
    except (OSError, ValueError) as error:
        raise NotRunningError(f"no agent answers on {path}: {error}") from error
    if not isinstance(document, dict):
        raise NotRunningError(f"{path}: not an agent's answer")
    return document


def _request(connection: socket.socket) -> str:
    """What the client asks for; one that neither speaks nor closes is taken to ask nothing."""
    request, deadline = b"", time.monotonic() + REQUEST_SEC
    try:
        while len(request) < REQUEST_LIMIT:
            connection.settimeout(max(0.001, deadline - time.monotonic()))
            part = connection.recv(REQUEST_LIMIT)
            if not part:
                break
            request += part
    except OSError:
        return ""
    finally:
        connection.settimeout(CLIENT_TIMEOUT_SEC)
    return request.decode("utf-8", "replace").strip()


def _user(connection: socket.socket) -> int:
    """User id of the process at the other end, as the kernel knows it."""
    peer = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    user: int = struct.unpack("3i", peer)[1]
    return user


def _answers(path: Path) -> bool:
    """Whether somebody listens on the socket ``path``, even if too busy to accept now."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as connection:
        try:
            connection.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        except BlockingIOError:
            return True
    return True


def _identity(path: Path) -> tuple[int, int] | None:
    """Tells a file from another of its name; None when there is none."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino
