"""systemd's notification protocol: one datagram to the socket that the manager names."""

from __future__ import annotations

import os
import socket


def notify(state: str) -> None:
    """Send ``state`` (lines such as ``READY=1``) to systemd; without systemd, do nothing.

    Never raises and never blocks: a manager that does not listen must not stop the work.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    if address.startswith("@"):  # abstract namespace: a NUL byte stands first
        address = "\0" + address[1:]
    kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
    with socket.socket(socket.AF_UNIX, kind) as channel:
        try:
            channel.sendto(state.encode(), address)
        except OSError:
            return
