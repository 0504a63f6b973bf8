"""Where everything slow to make is kept between runs, outside the checkout."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def cache_directory() -> Path:
    """``$AOD_CACHE``, else ~/.cache/aod-fleet; made if it is not there."""
    directory = Path(os.environ.get("AOD_CACHE") or "~/.cache/aod-fleet").expanduser()
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    return directory


@contextmanager
def exclusive_lock(path: Path) -> Iterator[None]:
    """Held by one process at a time; the kernel releases it when that process dies."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
