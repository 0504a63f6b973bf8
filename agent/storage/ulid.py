"""ULIDs: 26 characters, unique, sortable by time (Crockford base 32, 48 bits of ms, 80 random)."""

from __future__ import annotations

import os
import re
import time

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PATTERN = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")


def new_ulid(time_ms: int | None = None) -> str:
    """A fresh ULID for ``time_ms`` (milliseconds of the wall clock, now if absent)."""
    moment = time.time_ns() // 1_000_000 if time_ms is None else time_ms
    value = (moment & (1 << 48) - 1) << 80 | int.from_bytes(os.urandom(10), "big")
    return "".join(_ALPHABET[value >> shift & 31] for shift in range(125, -1, -5))


def is_ulid(text: str) -> bool:
    """Whether ``text`` is one ULID and nothing else."""
    return _PATTERN.fullmatch(text) is not None


def ulid_time_ms(ulid: str) -> int:
    """Milliseconds of the wall clock at which ``ulid`` was made."""
    value = 0
    for character in ulid[:10]:
        value = value << 5 | _ALPHABET.index(character)
    return value
