"""What comes from the loader over its socket: one message with file descriptors, or a fault."""

from __future__ import annotations

import array
import json
import os
import select
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

MESSAGE_LIMIT = 128 << 10
DESCRIPTOR_LIMIT = 64
NOISE_LIMIT = 4_000
REPORT_REMEDY = "install aod-fleet anew; if the fault stays, report this message"


class ProbeFault(Exception):  # noqa: N818 - the word the status uses
    """No probe: ``kind`` is stable and for programs, ``message`` and ``remedy`` for people.

    Kinds of the loader: architecture, not_root, no_bcc, wrong_bcc, no_tracefs, no_cifs,
    no_headers, compile, maps, verifier, attach. Kinds found here: no_loader, loader_died,
    loader_silent, timeout, garbage, layout.
    """

    def __init__(self, kind: str, message: str, remedy: str) -> None:
        super().__init__(f"{kind}: {message} ({remedy})")
        self.kind = kind
        self.message = message
        self.remedy = remedy


class LoadStopped(Exception):  # noqa: N818 - not an error: it was asked for
    """Loading was given up because the agent is to stop."""


@dataclass(frozen=True)
class HandOver:
    """The loader's message; whoever holds it owns the descriptors (close-on-exec)."""

    message: dict[str, Any]
    descriptors: tuple[int, ...]

    def close(self) -> None:
        """Close every descriptor; with the links the probes are detached."""
        for descriptor in self.descriptors:
            os.close(descriptor)


def wait_for_message(channel: socket.socket, timeout_sec: float, stop_fd: int | None) -> None:
    """Until `receive` would not block. Raises TimeoutError, and `LoadStopped` when ``stop_fd``
    becomes readable first."""
    poller = select.poll()
    poller.register(channel, select.POLLIN)
    if stop_fd is not None:
        poller.register(stop_fd, select.POLLIN)
    ready = [descriptor for descriptor, _ in poller.poll(timeout_sec * 1000)]
    if stop_fd in ready:
        raise LoadStopped
    if not ready:
        raise TimeoutError


def receive(channel: socket.socket) -> HandOver | None:
    """The one message, or None when the other end was closed without one.

    Raises `ProbeFault`: garbage, or the fault that the loader reports.
    """
    descriptors = array.array("i")
    room = socket.CMSG_SPACE(DESCRIPTOR_LIMIT * descriptors.itemsize)
    data, ancillary, flags, _ = channel.recvmsg(MESSAGE_LIMIT, room, socket.MSG_CMSG_CLOEXEC)
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            descriptors.frombytes(content[: len(content) - len(content) % descriptors.itemsize])
    if not data and not descriptors:
        return None
    received = HandOver({}, tuple(descriptors))
    try:
        complete = not flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC)
        return HandOver(_checked(data, complete), received.descriptors)
    except ProbeFault:
        received.close()
        raise


def garbage(what: str) -> ProbeFault:
    """The fault for a message that no loader of this release sends."""
    return ProbeFault("garbage", f"the loader's message makes no sense: {what}", REPORT_REMEDY)


def timed_out(timeout_sec: float, noise: BinaryIO) -> ProbeFault:
    """The fault of a loader that took too long."""
    return ProbeFault(
        "timeout",
        f"the loader was not done after {timeout_sec:g} s {tail(noise)}".strip(),
        "see whether the host is overloaded: loading takes seconds on an idle one",
    )


@contextmanager
def noise_file() -> Iterator[BinaryIO]:
    """A file without a name for the loader's stderr."""
    with os.fdopen(os.memfd_create("loader-stderr"), "w+b") as noise:
        yield noise


def tail(noise: BinaryIO) -> str:
    """The end of what the loader wrote there."""
    size = noise.seek(0, os.SEEK_END)
    noise.seek(max(0, size - NOISE_LIMIT))
    return noise.read().decode(errors="replace").strip()


def _checked(data: bytes, complete: bool) -> dict[str, Any]:
    if not complete:
        raise garbage("the message is longer than any loader's")
    try:
        message = json.loads(data)
    except ValueError as error:
        raise garbage(f"not JSON: {data[:80]!r}") from error
    if not isinstance(message, dict):
        raise garbage(f"not an object: {data[:80]!r}")
    fault = message.get("fault")
    if fault is None:
        return message
    if not isinstance(fault, dict):
        raise garbage(f"fault {fault!r}")
    kind, words, remedy = (str(fault.get(key, "")) for key in ("kind", "message", "remedy"))
    raise ProbeFault(kind or "loader_silent", words, remedy)
