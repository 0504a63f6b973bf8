"""Runs a component in a named thread and starts it again when it dies."""

from __future__ import annotations

import ctypes
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from agent.service.audit import Audit
from agent.service.stop_signal import StopSignal

log = logging.getLogger("aod.supervisor")

PR_SET_NAME = 15
FIRST_BACKOFF_SEC = 1.0
LONGEST_BACKOFF_SEC = 300.0
# A component that ran this long starts again with the first backoff.
STABLE_SEC = 600.0

_libc = ctypes.CDLL(None, use_errno=True)


def set_thread_name(name: str) -> None:
    """Name the calling thread for ps and top; the kernel keeps 15 characters."""
    _libc.prctl(PR_SET_NAME, name.encode()[:15], 0, 0, 0)


@dataclass(frozen=True)
class ThreadState:
    """``state`` is running, backing_off or ended; ``last_fault`` is empty if there was none."""

    state: str
    restarts: int
    last_fault: str


class ThreadSupervisor:
    """One component's thread. ``run`` ends by returning; an exception is a fault to survive.

    The wait between restarts doubles up to five minutes. ``stop`` ends it: the component runs a
    last time, to take what is still in its queue.
    """

    def __init__(self, name: str, run: Callable[[], None], stop: StopSignal, audit: Audit) -> None:
        self.name = name
        self._run = run
        self._stop = stop
        self._audit = audit
        self._thread = threading.Thread(target=self._supervise, name=name, daemon=True)
        self.state = ThreadState("running", 0, "")

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def join(self, timeout_sec: float | None = None) -> bool:
        """Wait for the end; whether it came in time."""
        self._thread.join(timeout_sec)
        return not self._thread.is_alive()

    def _supervise(self) -> None:
        set_thread_name(self.name)
        backoff_sec = FIRST_BACKOFF_SEC
        while True:
            last, started = self._stop.is_set(), time.monotonic()
            try:
                self._run()
                self.state = ThreadState("ended", self.state.restarts, self.state.last_fault)
                return
            except Exception as fault:
                if time.monotonic() - started > STABLE_SEC:
                    backoff_sec = FIRST_BACKOFF_SEC
                self._note(fault, backoff_sec)
            if last:
                self.state = ThreadState("ended", self.state.restarts, self.state.last_fault)
                return
            self._stop.wait(backoff_sec)
            backoff_sec = min(backoff_sec * 2, LONGEST_BACKOFF_SEC)
            self.state = ThreadState("running", self.state.restarts + 1, self.state.last_fault)

    def _note(self, fault: Exception, backoff_sec: float) -> None:
        message = f"{type(fault).__name__}: {fault}"
        self.state = ThreadState("backing_off", self.state.restarts, message)
        log.error("%s failed, next try in %.0f s: %s", self.name, backoff_sec, message)
        self._audit.record(
            "restart", f"{self.name} failed and will be restarted: {message}", component=self.name
        )
