"""Which server a lost connection is blamed on: its name, or what of it the kernel had room for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from agent.anomaly_types.reconnect import ReconnectRule
from agent.cifs.debug_data import Server
from agent.cifs.state import CifsState
from agent.detection.event_batch import EventBatch
from agent.detection.scene import Scene
from agent.events.event_source import empty_snapshot
from bpf import abi
from tests.rules import handler_of

CONNECTION = 3
LONG = "files.department.example"
ENDLESS = f"{'files.' * 12}example"


def blamed(host: str, listed: tuple[str, ...], remembered: bool) -> str:
    """For the loss of a connection to ``host``, when DebugData listed ``listed``; ``remembered``:
    the kernel's memory still has the host name of that connection."""
    events = np.zeros(1, abi.EVENT)
    events["smbcommand"], events["tool"] = abi.NO_COMMAND, abi.TOOL_RECONNECT
    events["session_id"], events["task"] = CONNECTION, host.encode()
    hosts = {CONNECTION: host[: abi.HOSTNAME_LENGTH - 1]} if remembered else {}
    snapshot = replace(empty_snapshot(), hosts=hosts)
    state = CifsState(tuple(Server(None, name, (), ()) for name in listed), ())
    handler = handler_of(ReconnectRule(name="lost"))
    (finding,) = handler.detect(EventBatch.of(events))
    scene = Scene(lambda: events, lambda: snapshot, state, lambda: state)
    assert handler.describe(finding, scene).place.server == handler.server(finding, scene)
    return handler.server(finding, scene)


@pytest.mark.parametrize("remembered", [True, False])
@pytest.mark.parametrize("listed", [("files2",), ("files2", "files"), (), ("files", "other")])
def test_a_short_name_is_whole(listed: tuple[str, ...], remembered: bool) -> None:
    assert blamed("files", listed, remembered) == "files"


def test_a_long_name_is_told_by_the_kernels_memory() -> None:
    assert blamed(LONG, (f"{LONG}.org",), remembered=True) == LONG


@pytest.mark.parametrize(("host", "remembered"), [(LONG, False), (ENDLESS, True), (ENDLESS, False)])
def test_a_name_that_was_cut_is_that_of_the_only_server_that_fits(
    host: str, remembered: bool
) -> None:
    assert blamed(host, ("other", host), remembered) == host


def test_a_name_that_was_cut_and_fits_several_is_left_as_it_is() -> None:
    assert blamed(LONG, (LONG, f"{LONG}.org"), remembered=False) == "files.department"
