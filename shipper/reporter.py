"""Tells how the shipping goes: log, service manager, state file."""

from __future__ import annotations

import contextlib
import logging
import math

from agent.service.sd_notify import notify
from shipper.outcome import Outcome, Summary
from shipper.shipper_state import FaultNote, StateFile

_log = logging.getLogger("aod-shipper")


class Reporter:
    """Hears of everything from the service's one thread, and tells only what is new.

    Only this writes the state file: a file of root, who runs ``once``, could not be replaced.
    """

    def __init__(self, state_file: StateFile) -> None:
        self._state_file = state_file
        self._known: list[FaultNote] = []

    def deliver(self, outcome: Outcome) -> None:
        """One line for all that is delivered; what stays is told once a round is over."""
        if outcome.key is not None and outcome.fault is None:
            _log.info("shipped %s (%d bytes) %s", outcome.title, outcome.size, outcome.key)

    def begin(self) -> None:
        """A round begins."""

    def end(self, summary: Summary, rest_sec: float) -> None:
        """A round is over; the next one comes after ``rest_sec`` at the latest."""
        notify(f"STATUS={_in_words(summary)}")
        notes = summary.notes()
        for note in notes:
            if not any(note.says_the_same(old) for old in self._known):
                _log.warning("%d pending: %s; remedy: %s", summary.left, note.text, note.remedy)
        if self._known and not notes:
            _log.info("nothing is in the way any more")
        self._known = notes
        # A note that cannot be written must not stop the shipping; the fault itself is reported.
        with contextlib.suppress(OSError):
            self._state_file.write(notes)

    def tick(self) -> None:
        """Do what is due by the clock."""

    def due_sec(self) -> float:
        """When `tick` has something to do again."""
        return math.inf


def _in_words(summary: Summary) -> str:
    if summary.fault is not None:
        return f"{summary.left} pending; {summary.fault.message}; {summary.fault.remedy}"
    if summary.passed_over:
        return f"{len(summary.passed_over)} bundles stay in the spool"
    return "everything is shipped"
