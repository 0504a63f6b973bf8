"""A capture on demand, by the running agent or, where none runs, by one made for it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from agent.configuration.schema import Config
from agent.controller import Controller
from agent.detection.on_demand import CaptureRequest
from agent.kernel.kernel_filter import kernel_settings
from agent.kernel.probe_opener import ProbeOpener
from agent.service.status_server import NotRunningError, give_order
from agent.service.stop_signal import StopSignal

# How often the agent is asked how far it is.
POLL_SEC = 0.25
# Compiling and attaching takes seconds; without the kernel's events the rest is still collected.
ATTACH_SEC = 60.0

State = dict[str, Any]
# Hears of the capture's state as it goes on.
Observer = Callable[[State], None]


class CaptureFailedError(Exception):
    """The capture came to no bundle, for the reason in the message."""


def capture_by_agent(directory: Path, request: CaptureRequest, observe: Observer) -> State:
    """Have the agent that answers in ``directory`` make a bundle; its state when it is there.

    Raises `NotRunningError` when none does, `CaptureFailedError`.
    """
    answer = give_order(directory, "capture", asdict(request))
    try:
        while answer.get("state") == "collecting":
            observe(answer)
            time.sleep(POLL_SEC)
            answer = give_order(directory, "capture-state", {"id": answer["id"]})
    except NotRunningError as error:
        raise CaptureFailedError(
            f"the agent ended meanwhile; what it had of {answer['id']} is in the spool, "
            "or will be when it starts again"
        ) from error
    return _checked(answer)


def capture_alone(config: Config, request: CaptureRequest, observe: Observer) -> State:
    """Be the agent for as long as the capture lasts. SIGINT and SIGTERM end it early: the bundle
    then holds what there is.

    Raises OSError, `AlreadyRunningError`, `CaptureFailedError`.
    """
    opener = ProbeOpener(kernel_settings(config.guardian.anomalies.values()))
    controller = Controller(config, opener, lambda: opener.state, None)
    interrupt = StopSignal()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: interrupt.set())
    controller.start()
    try:
        _await_probes(opener, interrupt, observe)
        answer = controller.capture(request)
        while answer["state"] == "collecting" and not interrupt.wait(POLL_SEC):
            observe(answer)
            answer = controller.capture_state(answer["id"])
    finally:
        ended = controller.shutdown()
    answer = controller.capture_state(answer["id"])
    if not ended:
        # At its end the interpreter would wait for a thread that hangs, perhaps on a dead disk.
        os._exit(1)
    return _checked({**answer, "source": opener.state})


def _await_probes(opener: ProbeOpener, interrupt: StopSignal, observe: Observer) -> None:
    deadline = time.monotonic() + ATTACH_SEC
    while opener.state["state"] in {"starting", "loading"} and time.monotonic() < deadline:
        observe({"state": "attaching"})
        if interrupt.wait(POLL_SEC):
            return


def _checked(answer: State) -> State:
    if answer.get("state") != "done":
        raise CaptureFailedError(answer.get("error", "the agent does not know this capture"))
    return answer
