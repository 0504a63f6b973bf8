"""What is known when an anomaly is put into words."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from agent.cifs.state import CifsState
from agent.detection.anomaly import Place
from agent.detection.event_batch import EventBatch, session_keys
from agent.events.activity import commands_between
from agent.events.event_source import Snapshot


class Scene:
    """``take_history`` gives the recorder's events until the finding, oldest first, and
    ``take_snapshot`` the kernel's memory then: megabytes, copied when first asked for.

    ``state``: the servers, as the kernel listed them last; ``renew`` asks the kernel again.
    """

    def __init__(
        self,
        take_history: Callable[[], NDArray[np.void]],
        take_snapshot: Callable[[], Snapshot],
        state: CifsState,
        renew: Callable[[], CifsState],
    ) -> None:
        self._take_history = take_history
        self._take_snapshot = take_snapshot
        self._renew = renew
        self.state = state

    @cached_property
    def history(self) -> NDArray[np.void]:
        """`bpf.abi.EVENT` records."""
        return self._take_history()

    @cached_property
    def snapshot(self) -> Snapshot:
        """The kernel's memory."""
        return self._take_snapshot()

    def window(self, time_ns: int, window_ns: int, session_id: int) -> EventBatch:
        """The events of one session that ended in the ``window_ns`` before ``time_ns``."""
        times = np.ascontiguousarray(self.history["cmd_end_time_ns"])
        inside = (times <= time_ns) & (times + np.uint64(window_ns) >= time_ns)
        owners = session_keys(self.history["session_id"], self.history["smbcommand"])
        inside &= owners == session_id
        return EventBatch.of(self.history[inside])

    def commands_in(self, time_ns: int, window_ns: int) -> NDArray[np.uint64]:
        """How many commands of each kind ended on this host in that window, fast ones included.

        All zero where the kernel program did not keep count for so long.
        """
        return commands_between(self.snapshot.activity, time_ns - window_ns, time_ns)

    def place(self, session_id: int, tree_id: int, server: str = "") -> Place:
        """Server, share and mount points, as far as they are known."""
        share = self.state.share_of(session_id, tree_id)
        if not share and session_id:  # mounted since
            self.state = self._renew()
            share = self.state.share_of(session_id, tree_id)
        return Place(
            server=server or self.state.server_of(session_id),
            share=share,
            mount_points=self.state.mount_points(share) if share else (),
        )
