"""A batch of events by column: read from the records once, whatever the number of rules."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agent.configuration.smb_commands import ALL_SMB_CMDS
from bpf import abi

# Members of the record that lie in one word are taken out together.
RESULT_WORD = np.dtype(
    [("retval", np.int32), ("command", np.uint16), ("tool", np.uint8), ("compounded", np.uint8)]
)
TOOL_SHIFT = 48
SESSION_SETUP = ALL_SMB_CMDS["SMB2_SESSION_SETUP"]
WORDS = abi.EVENT.itemsize // 8
PLACES = {name: offset // 8 for name, (_, offset) in abi.fields(abi.EVENT)}

Chosen = NDArray[np.bool_] | NDArray[np.intp]


@dataclass(frozen=True)
class EventBatch:
    """Columns of ``events`` (`bpf.abi.EVENT`, in order of arrival), each of the same length.

    ``tools``: the kernel's `abi.TOOL_` bits of all of them together. Whatever a rule can count
    carries the bit of its tool, so a batch without that bit holds nothing for the rule.
    """

    events: NDArray[np.void]
    tools: int
    latency_ns: NDArray[np.uint64]
    retval: NDArray[np.int32]
    command: NDArray[np.uint16]

    def times_ns(self, chosen: Chosen) -> NDArray[np.uint64]:
        """When the ``chosen`` events ended: few of them as a rule, so it is no column."""
        return self._column("cmd_end_time_ns")[chosen]

    def sessions(self, chosen: Chosen) -> NDArray[np.uint64]:
        """Whose the ``chosen`` events are: see `session_keys`."""
        return session_keys(self._column("session_id")[chosen], self.command[chosen])

    @classmethod
    def of(cls, events: NDArray[np.void]) -> EventBatch:
        """Copy the columns out that a rule compares for every event."""
        words = events.view(np.uint64).reshape(len(events), WORDS)
        results = words[:, PLACES["retval"]].copy()
        members = results.view(RESULT_WORD)
        return cls(
            events,
            int(np.bitwise_or.reduce(results)) >> TOOL_SHIFT & 0xFF,
            words[:, PLACES["metric_latency_ns"]].copy(),
            members["retval"],
            members["command"],
        )

    def _column(self, name: str) -> NDArray[np.uint64]:
        words = self.events.view(np.uint64).reshape(len(self.events), WORDS)
        column: NDArray[np.uint64] = words[:, PLACES[name]]
        return column


def session_keys(
    session_ids: NDArray[np.uint64], commands: NDArray[np.uint16]
) -> NDArray[np.uint64]:
    """Whose each command is: its session's, but 0 for SESSION_SETUP, since every try to log on
    gets a new session id."""
    keys: NDArray[np.uint64] = np.where(commands == SESSION_SETUP, np.uint64(0), session_ids)
    return keys
