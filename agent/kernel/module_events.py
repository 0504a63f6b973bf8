"""Waits for the kernel's SMB client without polling: the kernel announces every module."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

NETLINK_KOBJECT_UEVENT = 15
KERNEL_EVENTS_GROUP = 1
CIFS_MODULE = Path("/sys/module/cifs")
SIGNS_OF_CIFS = (
    Path("/sys/kernel/tracing/events/cifs"),
    Path("/sys/kernel/debug/tracing/events/cifs"),
    CIFS_MODULE,
)


def wait_for_cifs(stop_fd: int, signs: Sequence[Path] = SIGNS_OF_CIFS) -> bool:
    """Block until one of ``signs`` is there (True) or ``stop_fd`` is readable (False)."""
    return _wait(lambda: _is_there(signs), [stop_fd]) is None


def loaded_cifs(module: Path = CIFS_MODULE) -> int | None:
    """Tells one loading of the module from the next; None while it is not loaded."""
    try:
        # Every new directory of sysfs has a number that none had before.
        return module.stat().st_ino
    except OSError:
        return None


def wait_for_new_cifs(
    descriptors: Sequence[int], before: int | None, module: Path = CIFS_MODULE
) -> None:
    """Block until the module is loaded and is another than ``before`` (of `loaded_cifs`), or one
    of ``descriptors`` is readable.

    Waiting for its end would not do: that is announced while the directory is still there. A
    kernel with cifs built in never loads it anew.
    """
    _wait(lambda: loaded_cifs(module) not in (None, before), descriptors)


def _wait(condition: Callable[[], bool], descriptors: Sequence[int]) -> int | None:
    """None when ``condition`` holds, else the descriptor that became readable before.

    The socket listens before the first look, so no module is missed between the two. It is the
    kernel's own announcement: udev need not run.
    """
    with socket.socket(
        socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, NETLINK_KOBJECT_UEVENT
    ) as kernel:
        kernel.bind((0, KERNEL_EVENTS_GROUP))
        poller = select.poll()
        poller.register(kernel, select.POLLIN)
        for descriptor in descriptors:
            poller.register(descriptor, select.POLLIN)
        while not condition():
            for ready, _ in poller.poll():
                if ready in descriptors:
                    return ready
            _discard(kernel)
    return None


def _is_there(signs: Sequence[Path]) -> bool:
    # Not Path.is_dir: it raises where the directories above may not be entered.
    return any(os.path.isdir(sign) for sign in signs)  # noqa: PTH112


def _discard(kernel: socket.socket) -> None:
    """Empty the socket: what an announcement says matters less than another look.

    ENOBUFS means that some were lost, which another look makes good as well.
    """
    with contextlib.suppress(BlockingIOError):
        while True:
            try:
                kernel.recv(1)
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
