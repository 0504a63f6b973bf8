"""The wall clock, as it is written into files."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone


def utc_now() -> str:
    """This moment in ISO 8601, UTC, seconds."""
    return utc_after(0)


def utc_after(seconds: float) -> str:
    """The moment in so many ``seconds``, likewise."""
    moment = datetime.now(timezone.utc) + timedelta(seconds=seconds)
    return moment.isoformat(timespec="seconds")
