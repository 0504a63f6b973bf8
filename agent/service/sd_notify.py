"""systemd's notification protocol: one datagram to the socket that the manager names."""

from __future__ import annotations

import os
import socket

# How long a manager that is behind gets to make room for the datagram.
TIMEOUT_SEC = 5.0


def notify(state: str) -> None:
    """Send ``state`` (lines such as ``READY=1``) to systemd; without systemd, do nothing.

    Never raises, and blocks for `TIMEOUT_SEC` at most: a manager that does not listen must not
    stop the work.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    if address.startswith("@"):  # abstract namespace: a NUL byte stands first
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        channel.settimeout(TIMEOUT_SEC)
        try:
            # Only a connected socket can wait for room in the receiver's queue.
            channel.connect(address)
            channel.send(state.encode())
        except OSError:
            return
