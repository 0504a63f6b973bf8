"""Words for the sentence that says what a detector saw."""

from __future__ import annotations

import numpy as np


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
