"""A batch of events by column: read from the records once, whatever the number of rules."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agent.configuration.smb_commands import ALL_SMB_CMDS
from bpf import abi

# Members of the record that lie in one word are taken out together.
RESULT_WORD = np.dtype([("retval", np.int32), ("command", np.uint16), ("flags", np.uint16)])
SESSION_SETUP = ALL_SMB_CMDS["SMB2_SESSION_SETUP"]
WORDS = abi.EVENT.itemsize // 8
PLACES = {name: offset // 8 for name, (_, offset) in abi.fields(abi.EVENT)}


@dataclass(frozen=True)
class EventBatch:
    """Columns of ``events`` (`bpf.abi.EVENT`, in order of arrival), each of the same length."""

    events: NDArray[np.void]
    time_ns: NDArray[np.uint64]
    latency_ns: NDArray[np.uint64]
    retval: NDArray[np.int32]
    command: NDArray[np.uint16]

    def sessions(self, chosen: NDArray[np.bool_] | NDArray[np.intp]) -> NDArray[np.uint64]:
        """Session ids of the ``chosen`` events: few as a rule, so they are no column."""
        words = self.events.view(np.uint64).reshape(len(self.events), WORDS)
        return session_keys(words[:, PLACES["session_id"]][chosen], self.command[chosen])

    @classmethod
    def of(cls, events: NDArray[np.void]) -> EventBatch:
        """Copy the columns out; a record is one cache line, and this is the only pass over them."""
        words = events.view(np.uint64).reshape(len(events), WORDS)
        result = words[:, PLACES["retval"]].copy().view(RESULT_WORD)
        return cls(
            events,
            words[:, PLACES["cmd_end_time_ns"]].copy(),
            words[:, PLACES["metric_latency_ns"]].copy(),
            result["retval"],
            result["command"],
        )


def session_keys(
    session_ids: NDArray[np.uint64], commands: NDArray[np.uint16]
) -> NDArray[np.uint64]:
    """Whose each command is: its session's, but 0 for SESSION_SETUP, since every try to log on
    gets a new session id."""
    keys: NDArray[np.uint64] = np.where(commands == SESSION_SETUP, np.uint64(0), session_ids)
    return keys
