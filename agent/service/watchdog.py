"""Feeds systemd's watchdog, but only from loops that really complete."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from agent.service.sd_notify import notify

log = logging.getLogger("aod.watchdog")


@dataclass(frozen=True)
class Heart:
    """A component's loop: ``ping`` makes it come round, ``beats`` counts its rounds.

    ``expected`` is False while no round can be: it waits for something to watch, or is about to be
    restarted.
    """

    name: str
    ping: Callable[[], None]
    beats: Callable[[], int]
    expected: Callable[[], bool] = lambda: True


def watchdog_interval_sec() -> float | None:
    """A third of what systemd allows between two pings, so that one late round is no reason to
    die; None when it does not watch this process."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    return int(microseconds) / 3e6 if microseconds.isdigit() and int(microseconds) else None


class Pulse:
    """A beat counter for a component that answers pings instead of counting rounds itself."""

    def __init__(self) -> None:
        self.count = 0

    def beat(self) -> None:
        """One more answer."""
        self.count += 1


class Watchdog:
    """Call `tick` once an interval; it tells systemd only while every loop came round."""

    def __init__(self, hearts: Sequence[Heart]) -> None:
        self._hearts = hearts
        self._seen = {heart.name: -1 for heart in hearts}

    def tick(self) -> None:
        """Report if all loops completed since the last tick, and ask them to do so again."""
        stuck = [
            heart.name
            for heart in self._hearts
            if heart.expected() and heart.beats() == self._seen[heart.name]
        ]
        if stuck:
            log.error("no round completed since the last watchdog tick: %s", ", ".join(stuck))
        else:
            notify("WATCHDOG=1")
        for heart in self._hearts:
            self._seen[heart.name] = heart.beats()
            heart.ping()
