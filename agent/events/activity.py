"""How many commands were answered when: the kernel's ticks, read and made again.

A table is one-dimensional, of `abi.ACTIVITY`. The slot of a tick is its number modulo `abi.TICKS`,
so a table reaches `abi.TICKS` ticks back, and a slot may hold an older tick than the one asked for.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bpf import abi


def no_activity() -> NDArray[np.void]:
    """A table without a command."""
    return np.zeros(abi.TICKS, abi.ACTIVITY)


def commands_between(activity: NDArray[np.void], first_ns: int, last_ns: int) -> NDArray[np.uint64]:
    """Commands answered by row (`abi.COMMANDS` of them) in every tick that [first, last] touches.

    So they may be those of up to two ticks more than the range.
    """
    tick = activity["tick"]
    touched = (tick >= max(0, first_ns) >> abi.TICK_SHIFT) & (tick <= last_ns >> abi.TICK_SHIFT)
    commands: NDArray[np.uint64] = activity["commands"][touched].sum(axis=0, dtype=np.uint64)
    return commands


def activity_of(events: NDArray[np.void]) -> NDArray[np.void]:
    """The table the kernel program would have after ``events`` (`abi.EVENT`), all commands."""
    activity = no_activity()
    add_commands(activity, events)
    return activity


def add_commands(activity: NDArray[np.void], events: NDArray[np.void]) -> None:
    """Enter further ``events`` into the table ``activity``.

    Where two ticks meet in a slot, the later one stays. Records that are no commands do not count.
    """
    events = events[events["smbcommand"] != abi.NO_COMMAND]
    tick = events["cmd_end_time_ns"] >> np.uint64(abi.TICK_SHIFT)
    slot = (tick % np.uint64(abi.TICKS)).astype(np.int64)
    before = activity["tick"].copy()
    np.maximum.at(activity["tick"], slot, tick)
    activity["commands"][activity["tick"] != before] = 0
    stays = activity["tick"][slot] == tick
    row = np.minimum(events["smbcommand"], abi.COMMANDS - 1)
    np.add.at(activity["commands"], (slot[stays], row[stays]), 1)
