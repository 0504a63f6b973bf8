"""Takes rights away for the length of a test."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

NOBODY = 65534


@contextlib.contextmanager
def unprivileged(closed: Path) -> Iterator[None]:
    """Be a user without capabilities, for whom the directory ``closed`` is closed."""
    mode, user = closed.stat().st_mode, os.geteuid()
    closed.chmod(0)
    try:
        if user == 0:
            os.seteuid(NOBODY)
        yield
    finally:
        os.seteuid(user)
        closed.chmod(mode)
