"""Runs the loader as a child for as long as it is needed, and receives what it hands over."""

from __future__ import annotations

import array
import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import bpf

MESSAGE_LIMIT = 128 << 10
DESCRIPTOR_LIMIT = 64
NOISE_LIMIT = 4_000
REPORT_REMEDY = "install aod-fleet anew; if the fault stays, report this message"


class ProbeFault(Exception):  # noqa: N818 - the word the status uses
    """No probe: ``kind`` is stable and for programs, ``message`` and ``remedy`` for people.

    Kinds of the loader: architecture, not_root, no_bcc, wrong_bcc, no_tracefs, no_cifs,
    no_headers, compile, maps, verifier, attach. Kinds found here: loader_died, loader_silent,
    timeout, garbage, layout.
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


def run_loader(command: Sequence[str], timeout_sec: float, stop_fd: int | None = None) -> HandOver:
    """Start ``command --socket FD`` and wait for its message; the child is gone afterwards.

    It runs in a session of its own, which is killed as a whole, and from the directory that holds
    the `bpf` package, so that it is of the same release. Raises `ProbeFault`, and `LoadStopped`
    when ``stop_fd`` becomes readable first.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    deadline = time.monotonic() + timeout_sec
    with ours, os.fdopen(os.memfd_create("loader-stderr"), "w+b") as noise:
        with theirs:
            process = _start(command, theirs.fileno(), noise)
        try:
            _wait_for_message(ours, stop_fd, timeout_sec)
            hand_over = _receive(ours)
            if hand_over is None:
                raise _death(process.wait(max(0.0, deadline - time.monotonic())), noise)
        except (TimeoutError, subprocess.TimeoutExpired) as error:
            raise ProbeFault(
                "timeout",
                f"the loader was not done after {timeout_sec:g} s {_tail(noise)}".strip(),
                "see whether the host is overloaded: loading takes seconds on an idle one",
            ) from error
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return _without_fault(hand_over)


def _start(command: Sequence[str], channel: int, noise: BinaryIO) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            [*command, "--socket", str(channel)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=noise,
            pass_fds=[channel],
            start_new_session=True,
            cwd=Path(bpf.__file__).parents[1],
        )
    except OSError as error:
        raise ProbeFault(
            "loader_died", f"cannot start the loader: {error}", REPORT_REMEDY
        ) from error


def _wait_for_message(channel: socket.socket, stop_fd: int | None, timeout_sec: float) -> None:
    poller = select.poll()
    poller.register(channel, select.POLLIN)
    if stop_fd is not None:
        poller.register(stop_fd, select.POLLIN)
    ready = [descriptor for descriptor, _ in poller.poll(timeout_sec * 1000)]
    if stop_fd in ready:
        raise LoadStopped
    if not ready:
        raise TimeoutError


def _receive(channel: socket.socket) -> HandOver | None:
    """The one message, or None when the other end was closed without one."""
    descriptors = array.array("i")
    room = socket.CMSG_SPACE(DESCRIPTOR_LIMIT * descriptors.itemsize)
    data, ancillary, flags, _ = channel.recvmsg(MESSAGE_LIMIT, room, socket.MSG_CMSG_CLOEXEC)
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            descriptors.frombytes(content[: len(content) - len(content) % descriptors.itemsize])
    if not data and not descriptors:
        return None
    received = HandOver({}, tuple(descriptors))
    if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
        received.close()
        raise garbage("the message is longer than any loader's")
    try:
        message = json.loads(data)
    except ValueError as error:
        received.close()
        raise garbage(f"not JSON: {data[:80]!r}") from error
    if not isinstance(message, dict):
        received.close()
        raise garbage(f"not an object: {data[:80]!r}")
    return HandOver(message, received.descriptors)


def garbage(what: str) -> ProbeFault:
    """The fault for a message that no loader of this release sends."""
    return ProbeFault("garbage", f"the loader's message makes no sense: {what}", REPORT_REMEDY)


def _without_fault(hand_over: HandOver) -> HandOver:
    fault = hand_over.message.get("fault")
    if fault is None:
        return hand_over
    hand_over.close()
    if not isinstance(fault, dict):
        raise garbage(f"fault {fault!r}")
    kind, message, remedy = (str(fault.get(key, "")) for key in ("kind", "message", "remedy"))
    raise ProbeFault(kind or "loader_silent", message, remedy)


def _death(status: int, noise: BinaryIO) -> ProbeFault:
    tail = _tail(noise)
    if status < 0:
        name = signal.Signals(-status).name
        return ProbeFault(
            "loader_died",
            f"the loader was ended by {name} {tail}".strip(),
            "see the kernel's log: out of memory, or a seccomp filter of the service",
        )
    if status == 0:
        return ProbeFault("loader_silent", f"the loader said nothing {tail}".strip(), REPORT_REMEDY)
    return ProbeFault(
        "loader_died", f"the loader ended with {status} {tail}".strip(), REPORT_REMEDY
    )


def _tail(noise: BinaryIO) -> str:
    size = noise.seek(0, os.SEEK_END)
    noise.seek(max(0, size - NOISE_LIMIT))
    return noise.read().decode(errors="replace").strip()
