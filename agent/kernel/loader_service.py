"""Has the loader's service load the program: then this process needs none of the rights for it.

systemd starts an `aod-loader@.service` for each connection to `LOADER_SOCKET`. The request is one
message, ``{"ring_pages": N}``, with a descriptor for the loader's stderr; the answer is what a
loader that runs as a child sends. Whoever closes the connection ends the loader.
"""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import BinaryIO

from agent.kernel.hand_over import (
    HandOver,
    ProbeFault,
    noise_file,
    receive,
    tail,
    timed_out,
    wait_for_message,
)

LOADER_SOCKET = Path("/run/aod-loader.socket")


def offers_loading() -> bool:
    """Whether there is such a service, and it is for this user."""
    return os.access(LOADER_SOCKET, os.W_OK, effective_ids=True)


def ask_loader(
    ring_pages: int, timeout_sec: float, stop_fd: int | None = None, path: Path | None = None
) -> HandOver:
    """Have the program loaded; blocks until that is done. The loader is gone, or going, then.

    Raises `ProbeFault`, and `LoadStopped` when ``stop_fd`` becomes readable first.
    """
    request = json.dumps({"ring_pages": ring_pages}).encode()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as channel, noise_file() as noise:
        _connect(channel, path or LOADER_SOCKET, timeout_sec)
        try:
            socket.send_fds(channel, [request], [noise.fileno()])
            wait_for_message(channel, timeout_sec, stop_fd)
            hand_over = receive(channel)
        except TimeoutError as error:
            raise timed_out(timeout_sec, noise) from error
        # A loader that died before it read the request.
        except ConnectionError as error:
            raise _death(noise) from error
        if hand_over is None:
            raise _death(noise)
    return hand_over


def _connect(channel: socket.socket, path: Path, timeout_sec: float) -> None:
    """The limit is for a queue of connections that nobody accepts."""
    channel.settimeout(timeout_sec)
    try:
        channel.connect(str(path))
    except OSError as error:
        raise ProbeFault(
            "no_loader",
            f"the loader's service cannot be asked: {path}: {error.strerror or error}",
            "systemctl restart aod-loader.socket",
        ) from error
    channel.settimeout(None)


def _death(noise: BinaryIO) -> ProbeFault:
    return ProbeFault(
        "loader_died",
        f"the loader's service ended without a word {tail(noise)}".strip(),
        "journalctl -u aod-loader.socket -u 'aod-loader@*'; perhaps it was out of memory",
    )
