"""Signals that are obeyed at once, whichever thread the kernel gives them to."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Mapping


def obey_signals(actions: Mapping[signal.Signals, Callable[[], None]]) -> None:
    """Have the signals' actions called, by a thread of its own; to be called by the main thread.

    Python's own handlers run when the main thread next wakes. A signal that comes while a child is
    being started may be taken by the thread that starts it, and then wakes nobody.
    """
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(write_end, False)
    for number in actions:
        signal.signal(number, lambda *_: None)
    signal.set_wakeup_fd(write_end)
    threading.Thread(target=_obey, args=(read_end, actions), name="Signals", daemon=True).start()


def _obey(read_end: int, actions: Mapping[signal.Signals, Callable[[], None]]) -> None:
    while True:
        for number in os.read(read_end, 64):
            action = actions.get(signal.Signals(number))
            if action:
                action()
