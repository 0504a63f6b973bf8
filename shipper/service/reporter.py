"""Tells how the shipping goes: log, service manager, state file."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

from agent import __version__
from agent.service.sd_notify import notify
from shipper.faults import BundleFault, Fault
from shipper.moments import utc_after, utc_now
from shipper.shipping.outcome import Outcome, Summary, note_of
from shipper.status.recent_rate import RecentRate
from shipper.status.shipper_state import (
    IDLE,
    PAUSED,
    SHIPPING,
    WAITING,
    FaultNote,
    ShipperState,
    StateFile,
)

# While much is shipped, the state is written so often at most.
STATE_SEC = 10.0
# A host that hands in bad bundles by the thousand must not fill log and state with them.
FAULTS_KEPT = 100

_log = logging.getLogger("aod-shipper")


class Reporter:
    """Hears of everything from the service's one thread, and tells only what is new.

    ``store_works``: the last delivery arrived.

    Only this writes the state file: a file of root, who runs ``once``, could not be replaced.
    """

    def __init__(self, state_file: StateFile, steady: Callable[[], float] = time.monotonic) -> None:
        self._state_file = state_file
        self._steady = steady
        self._rate = RecentRate(steady)
        self._failures: Counter[str] = Counter()
        self._shipped_bytes = 0
        self.store_works = False
        self._last_success = state_file.read().last_success
        now = utc_now()
        self._state = ShipperState(
            WAITING, since=now, started=now, version=__version__, process=os.getpid()
        )
        self._written_at = -STATE_SEC
        self._bundles: list[FaultNote] = []
        self._silence: FaultNote | None = None

    def start(self) -> None:
        """The service runs; what was in the way before may be so still."""
        known = self._state_file.read()
        self._write(replace(self._state, faults=known.faults, last_success=known.last_success))

    def deliver(self, outcome: Outcome) -> None:
        """One line for all that is delivered; what stays is told once a round is over."""
        self.store_works = outcome.key is not None
        if outcome.fault is not None:
            self._failures[outcome.fault.kind] += 1
        elif outcome.key is not None:
            self._rate.add(outcome.size)
            self._shipped_bytes += outcome.size
            self._last_success = utc_now()
            _log.info("shipped %s (%d bytes) %s", outcome.title, outcome.size, outcome.key)

    def begin(self) -> None:
        """The first look comes; before it, the service waits."""
        if self._state.state == WAITING:
            self._enter(IDLE, [], None)

    def end(self, summary: Summary, rest_sec: float) -> None:
        """A round is over; the next one comes after ``rest_sec`` at the latest.

        One that a stop ended before anything came of it says nothing: what was in the way is.
        """
        notes = sorted(summary.notes(), key=_is_of_bundle)[:FAULTS_KEPT]
        if summary.unfinished and not (notes or summary.shipped or summary.tombstones):
            return
        notify(f"STATUS={_in_words(summary)}")
        for note in notes:
            if not any(note.says_the_same(old) for old in self._bundles):
                _log.warning("%d pending: %s; remedy: %s", summary.left, note.text, note.remedy)
        if self._bundles and not notes:
            _log.info("nothing is in the way any more")
        state = PAUSED if summary.blocked else SHIPPING if summary.unfinished else IDLE
        self._enter(state, notes, None if not notes else rest_sec)

    def tick(self) -> None:
        """Between two deliveries: tell how far it is, now and then."""
        if self._steady() - self._written_at >= STATE_SEC:
            self._enter(SHIPPING, self._bundles, None)

    def heard_of_store(self, fault: Fault | None) -> None:
        """A heartbeat was due: ``fault`` kept it from the store. It concerns no bundle, but the
        next one will meet it too."""
        known, self._silence = self._silence, None if fault is None else note_of(fault)
        if self._silence and not (known and known.says_the_same(self._silence)):
            _log.warning("no heartbeat: %s; remedy: %s", fault, self._silence.remedy)
        if known or self._silence:
            self._enter(self._state.state, self._bundles, None)

    def _enter(self, name: str, faults: list[FaultNote], next_sec: float | None) -> None:
        self._written_at = self._steady()
        self._bundles = faults
        silence = [self._silence] if self._silence and not faults else []
        self._state = replace(
            self._state,
            state=name,
            faults=[*faults, *silence],
            since=self._state.since if name == self._state.state else utc_now(),
            next_try=None if next_sec is None else utc_after(next_sec),
            last_success=self._last_success,
            bytes_per_sec=self._rate.per_sec(),
            shipped_bytes=self._shipped_bytes,
            failures=dict(self._failures),
        )
        self._write(self._state)

    def _write(self, state: ShipperState) -> None:
        # A state that cannot be written must not stop the shipping; the fault itself is logged.
        with contextlib.suppress(OSError):
            self._state_file.write(replace(state, updated=utc_now()))


def _is_of_bundle(note: FaultNote) -> bool:
    """Such a one is in quarantine, with a mark that tells the same."""
    return note.kind == BundleFault.kind


def _in_words(summary: Summary) -> str:
    if summary.fault is not None:
        return f"{summary.left} pending; {summary.fault.message}; {summary.fault.remedy}"
    if summary.passed_over:
        return f"{len(summary.passed_over)} bundles stay in the spool"
    if summary.unfinished:
        return f"{summary.left} pending"
    return "everything is shipped"
