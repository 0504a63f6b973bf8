"""Why the program could not be loaded, and what a person can do about it."""

from __future__ import annotations


class LoadFault(Exception):  # noqa: N818 - the word the agent and its status use
    """``kind`` is stable and for programs; ``message`` and ``remedy`` are for people."""

    def __init__(self, kind: str, message: str, remedy: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.remedy = remedy
