"""Whether the running agent does its work: for who starts it and has to know soon."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from agent.report import STATES
from agent.service.status_server import (
    NotRunningError,
    Status,
    StatusFaultError,
    query_status,
)

#: Nothing to watch yet, and told not to watch, are no faults.
HEALTHY = frozenset({"watching", "waiting_for_cifs", "detached"})
#: What the host lacks whatever the release: to be told, and no reason to take a release back.
FAULTS_OF_THE_HOST = frozenset({"no_headers"})
_LOOK_AGAIN_SEC = 0.2


class NotHealthyError(Exception):
    """The agent did not get healthy in time; the message says why, with the remedy if known."""


def wait_until_healthy(directory: Path, timeout_sec: float) -> Status:
    """The status, once the agent is healthy.

    ``directory`` is where its socket lies. Looks at least once; raises `NotHealthyError` after
    ``timeout_sec``.
    """
    deadline = time.monotonic() + timeout_sec
    while True:
        try:
            status = query_status(directory)
            reason = _obstacle(status["source"])
            if not reason:
                return status
        except (NotRunningError, StatusFaultError) as error:
            reason = str(error)
        if time.monotonic() >= deadline:
            raise NotHealthyError(f"not healthy after {timeout_sec:g} s: {reason}")
        time.sleep(_LOOK_AGAIN_SEC)


def _obstacle(source: dict[str, Any]) -> str:
    """What keeps it from watching; empty when nothing does, or only the host."""
    state = str(source["state"])
    if state in HEALTHY or source.get("kind") in FAULTS_OF_THE_HOST:
        return ""
    if state == "fault":
        return f"{source['message']}\n  remedy: {source['remedy']}"
    return STATES.get(state, state)
