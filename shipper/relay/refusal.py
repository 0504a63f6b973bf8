"""Why the relay does not take something: the sentence for people, the word for the client."""

from __future__ import annotations

import errno

from shipper.relay.protocol import Kind

_FULL = (errno.ENOSPC, errno.EDQUOT)


class Refusal(Exception):  # noqa: N818 - it is an answer, as a fault is one in the shipper
    """``kind`` is part of the protocol; ``remedy`` says what a person can do."""

    def __init__(self, kind: Kind, message: str, remedy: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.remedy = remedy


def refusal_of(error: OSError) -> Refusal:
    """The relay's own disk is in the way."""
    if error.errno in _FULL:
        return Refusal("full", "the relay's disk is full", "make room on the central host")
    return Refusal(
        "relay",
        f"the relay cannot write: {error.strerror or error}",
        "on the central host, look at the inbox's owner and modes (docs/relay.md) and the "
        "kernel log",
    )
