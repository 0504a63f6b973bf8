"""Sizes, ages and times in the words of the commands, and tables of them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone

UNKNOWN = "unknown"
NOTHING = "-"


def size_text(count: float) -> str:
    """``1.5 MiB`` for a number of bytes."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.4g} {unit}"
        count /= 1024
    return f"{count:.4g} GiB"


def span_text(seconds: float) -> str:
    """``3.2 h`` for a length of time."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def parse_time(text: object) -> float | None:
    """Seconds since the epoch of an ISO 8601 time (UTC where it names no zone); None for others."""
    try:
        moment = datetime.fromisoformat(str(text))
        return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()
    except (ValueError, OverflowError):
        return None


def iso_time(seconds: float) -> str:
    """Seconds since the epoch in ISO 8601, UTC; `UNKNOWN` beyond the year 9999, which a forged
    id, or a file's time, may name."""
    try:
        return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="seconds")
    except (ValueError, OverflowError):
        return UNKNOWN


def since_text(moment: str | None, now: float) -> str:
    """``2026-01-01T12:00:00+00:00 (3.2 h ago)``, or when it will be."""
    seconds = parse_time(moment)
    if moment is None or seconds is None:
        return UNKNOWN
    if seconds > now:
        return f"{moment} (in {span_text(seconds - now)})"
    return f"{moment} ({span_text(now - seconds)} ago)"


def table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> list[str]:
    """Lines with aligned columns: the first ``left`` of them begin together, the others end."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    return [
        "  ".join(
            text.ljust(width) if place < left else text.rjust(width)
            for place, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (header, *rows)
    ]
