"""Runs the loader as a child for as long as it is needed: where no service does it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import bpf
from agent.kernel.hand_over import (
    REPORT_REMEDY,
    HandOver,
    ProbeFault,
    noise_file,
    receive,
    tail,
    timed_out,
    wait_for_message,
)


def run_loader(command: Sequence[str], timeout_sec: float, stop_fd: int | None = None) -> HandOver:
    """Start ``command --socket FD`` and wait for its message; the child is gone afterwards.

    It runs in a session of its own, which is killed as a whole, and from the directory that holds
    the `bpf` package, so that it is of the same release. Raises `ProbeFault`, and `LoadStopped`
    when ``stop_fd`` becomes readable first.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    deadline = time.monotonic() + timeout_sec
    with ours, noise_file() as noise:
        with theirs:
            process = _start(command, theirs.fileno(), noise)
        try:
            wait_for_message(ours, timeout_sec, stop_fd)
            hand_over = receive(ours)
            if hand_over is None:
                raise _death(process.wait(max(0.0, deadline - time.monotonic())), noise)
        except (TimeoutError, subprocess.TimeoutExpired) as error:
            raise timed_out(timeout_sec, noise) from error
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return hand_over


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


def _death(status: int, noise: BinaryIO) -> ProbeFault:
    words = tail(noise)
    if status < 0:
        name = signal.Signals(-status).name
        return ProbeFault(
            "loader_died",
            f"the loader was ended by {name} {words}".strip(),
            "see the kernel's log: out of memory, or a seccomp filter of the service",
        )
    if status == 0:
        return ProbeFault(
            "loader_silent", f"the loader said nothing {words}".strip(), REPORT_REMEDY
        )
    return ProbeFault(
        "loader_died", f"the loader ended with {status} {words}".strip(), REPORT_REMEDY
    )
