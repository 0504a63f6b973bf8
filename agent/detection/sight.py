"""What a detector sees when it looks at the kernel's memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from agent.cifs.state import CifsState
from agent.events.event_source import Snapshot


@dataclass(frozen=True)
class Sight:
    """The moment ``time_ns``; ``read_state`` asks the kernel what it lists as pending."""

    time_ns: int
    snapshot: Snapshot
    read_state: Callable[[], CifsState]

    @property
    def inflight(self) -> NDArray[np.void]:
        """`bpf.abi.INFLIGHT` records of the commands without an answer."""
        return self.snapshot.inflight

    @property
    def histograms(self) -> NDArray[np.uint64]:
        """Latencies of all commands so far: (COMMANDS, BUCKETS)."""
        return self.snapshot.histograms

    @cached_property
    def state(self) -> CifsState:
        """Read at the first use, through a child: costs milliseconds, at most a second."""
        return self.read_state()
