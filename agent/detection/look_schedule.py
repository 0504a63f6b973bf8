"""Looks at the kernel's memory while commands are under way, and never on an idle host.

While nothing has to be looked at, the bell is armed: the next command that starts rings it, and
that wakes the agent. So an idle host costs no wake-up and a busy one a look in a while.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from agent.cifs.state import CifsState
from agent.detection.anomaly_handler import AnomalyHandler, Finding
from agent.detection.sight import Sight
from agent.events.event_source import Snapshot

# A detector that asks for a look at once would keep the loop from anything else.
SHORTEST_NS = 10_000_000

Handler = AnomalyHandler[Any]


class Sense(Protocol):
    """The source of events, as far as looking needs it; see `EventSource` for the contracts."""

    def snapshot(self, at_ns: int | None = None) -> Snapshot:
        """The kernel's memory."""

    def arm_bell(self, at_ns: int) -> int | None:
        """Have the next command that starts ring; when that will be, if it is known already."""

    def bell_armed(self) -> bool:
        """Whether it has not rung yet."""


class LookSchedule:
    """``due_ns`` is when `look` is to be called next; None: when the bell has rung.

    The bell is for idle hosts: while commands flow, looks follow each other after a rest instead,
    so that not every command rings. ``read_state`` is asked what the kernel lists as pending at a
    time; ``hold_ns``: how soon what was found is to be looked at again, so that its incident does
    not seem over.
    """

    def __init__(self, sense: Sense, read_state: StateReader) -> None:
        self._sense = sense
        self._read_state = read_state
        self._handlers: Sequence[Handler] = ()
        self._commands = -1
        self.hold_ns = SHORTEST_NS
        self.due_ns: int | None = None

    def serve(self, handlers: Sequence[Handler]) -> None:
        """Look for those of ``handlers`` that look at all; the first look is due now."""
        self._handlers = [handler for handler in handlers if handler.looks]
        self.due_ns = 0 if self._handlers else None
        self._commands = -1

    def notice_bell(self, now_ns: int) -> None:
        """A look is due when the bell rang while nothing else was."""
        if self._handlers and self.due_ns is None and not self._sense.bell_armed():
            self.due_ns = now_ns

    def look(self, time_ns: int) -> tuple[Sight, Sequence[tuple[Handler, Finding]]]:
        """Let every detector look, and plan the next look; what was seen, what was found."""
        self.due_ns = time_ns + SHORTEST_NS  # should a detector raise, this look is not repeated
        sight = self._sight(time_ns)
        found = [
            (handler, finding) for handler in self._handlers for finding in handler.look(sight)
        ]
        self.due_ns = self._next(sight)
        if found:
            self.due_ns = self._earliest(self.due_ns, time_ns + self.hold_ns)
        if self.due_ns is None:
            self.due_ns = self._sense.arm_bell(time_ns)
            # What started before the bell was armed has not rung it.
            self.due_ns = self._earliest(self._next(self._sight(time_ns)), self.due_ns)
        return sight, found

    def _next(self, sight: Sight) -> int | None:
        due: int | None = None
        for handler in self._handlers:
            due = self._earliest(due, handler.next_look_ns(sight))
        commands, before = int(sight.histograms.sum()), self._commands
        self._commands = commands
        if due is None and commands != before and self._handlers:
            return sight.time_ns + min(handler.rest_ns for handler in self._handlers)
        return None if due is None else max(due, sight.time_ns + SHORTEST_NS)

    def _sight(self, time_ns: int) -> Sight:
        return Sight(time_ns, self._sense.snapshot(time_ns), lambda: self._read_state(time_ns))

    @staticmethod
    def _earliest(one: int | None, other: int | None) -> int | None:
        if one is None or other is None:
            return other if one is None else one
        return min(one, other)


class StateReader(Protocol):
    """Asks the kernel for its servers, shares and pending commands, as of a time."""

    def __call__(self, at_ns: int) -> CifsState:
        """Blocks for as long as its reader's limit at most."""
