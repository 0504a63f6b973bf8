"""Which server a session belongs to: asked of the kernel once, and again for what is new."""

from __future__ import annotations

from collections.abc import Callable

from agent.cifs.state import NO_STATE, CifsState

# Asking starts children and can take a second: what is not known then waits this long.
SPACING_NS = 2_000_000_000


class ServerDirectory:
    """Remembers what ``read_state`` (of a time in nanoseconds) said last. For one thread."""

    def __init__(self, read_state: Callable[[int], CifsState]) -> None:
        self._read_state = read_state
        self._asked_ns: int | None = None
        self.state = NO_STATE

    def refresh(self, time_ns: int) -> CifsState:
        """Ask now, if the last time is not too near; an answer that tells nothing leaves the last
        one."""
        if self._asked_ns is None or abs(time_ns - self._asked_ns) >= SPACING_NS:
            self._asked_ns = time_ns
            state = self._read_state(time_ns)
            self.state = self.state if state.fault else state
        return self.state

    def state_with(self, session_id: int, time_ns: int) -> CifsState:
        """The servers, with that of ``session_id`` (0: any will do) if the kernel knows it."""
        if session_id and not self.state.knows(session_id):
            return self.refresh(time_ns)
        return self.state
