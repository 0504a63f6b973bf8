"""Which server a session belongs to: asked of the kernel once, and again for what is new."""

from __future__ import annotations

from collections.abc import Callable

from agent.cifs.state import NO_STATE, CifsState

# A session that the kernel does not list either is asked for again after this.
AGAIN_NS = 10_000_000_000


class ServerDirectory:
    """Remembers what ``read_state`` (of a time in nanoseconds) said last. For one thread."""

    def __init__(self, read_state: Callable[[int], CifsState]) -> None:
        self._read_state = read_state
        self._state = NO_STATE
        self._asked: dict[int, int] = {}

    def refresh(self, time_ns: int) -> None:
        """Ask now; an answer that tells nothing leaves the last one."""
        self.remember(self._read_state(time_ns))

    def remember(self, state: CifsState) -> None:
        """Take an answer that somebody else asked for."""
        if not state.fault:
            self._state = state

    def state(self, session_id: int, time_ns: int) -> CifsState:
        """The servers, with that of ``session_id`` (0: any will do) if the kernel knows it."""
        unknown = session_id and not self._state.knows(session_id)
        last = self._asked.get(session_id)
        if unknown and (last is None or abs(time_ns - last) >= AGAIN_NS):
            self._asked[session_id] = time_ns
            self.refresh(time_ns)
        if self._state.knows(session_id):
            self._asked.pop(session_id, None)
        return self._state
