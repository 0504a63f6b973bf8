"""Words for the sentence that says what a detector saw."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from agent.cifs.state import CifsState


def actor(event: np.void) -> str:
    """``dd[4711]``: the task that issued a command, made printable."""
    task = bytes(event["task"]).decode("utf-8", "replace")
    printable = "".join(c if c.isprintable() else "?" for c in task)
    return f"{printable or '?'}[{int(event['pid'])}]"


def duration(nanoseconds: int) -> str:
    """``1.2 s``, ``430 ms`` or ``0.25 ms``."""
    if nanoseconds >= 1_000_000_000:
        return f"{nanoseconds / 1e9:.3g} s"
    return f"{nanoseconds / 1e6:.3g} ms"


def seconds(nanoseconds: int) -> str:
    """``1 s``, ``0.5 s``: a length of time as a setting gives it."""
    return f"{nanoseconds / 1e9:g} s"


def of_all(count: int, total: int, state: CifsState) -> str:
    """``37 of 40 commands``; without the total where it is not known, or is of several servers."""
    if total >= count and state.sole_session():
        return f"{count} of {total} commands"
    return f"{count} command{'s' if count != 1 else ''}"


def most_frequent(events: NDArray[np.void]) -> NDArray[np.void]:
    """Those of the command that is there most often."""
    commands, counts = np.unique(events["smbcommand"], return_counts=True)
    chosen: NDArray[np.void] = events[events["smbcommand"] == commands[np.argmax(counts)]]
    return chosen
