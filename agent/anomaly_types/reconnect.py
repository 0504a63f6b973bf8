"""Reconnect: the client lost its connection to a server, and has to make a new one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from agent.anomaly_types.anomaly_type import AnomalyType
from agent.configuration.rule_lists import acceptable_count
from agent.configuration.schema import AnomalyConfig
from agent.configuration.settings_reader import Section
from agent.detection.anomaly import Place, Trigger
from agent.detection.anomaly_handler import AnomalyHandler, Finding
from agent.detection.description import seconds
from agent.detection.event_batch import EventBatch
from agent.detection.scene import Scene
from agent.detection.session_counts import SessionCounts
from bpf import abi

# A name of as many bytes may go on: a record's room, and that in the kernel's memory.
CUT_LENGTHS = (abi.EVENT["task"].itemsize, abi.HOSTNAME_LENGTH - 1)


@dataclass(frozen=True, kw_only=True)
class ReconnectRule(AnomalyConfig):
    """So many lost connections to one server in the window."""

    type: ClassVar[str] = "reconnect"
    acceptable_count: int = 1

    def ask_kernel(self, settings: NDArray[np.void]) -> None:
        """Records of lost connections."""
        settings["reconnects"] = 1

    def detector(self, window_ns: int) -> ReconnectAnomalyHandler:
        return ReconnectAnomalyHandler(self, window_ns)


@dataclass(frozen=True)
class Loss:
    """The number of a connection, and the beginning of its host name: what fits a record."""

    connection: int
    host: str


class ReconnectAnomalyHandler(AnomalyHandler[ReconnectRule]):
    """Counts by connection: a record's session id is the connection's number here."""

    def __init__(self, rule: ReconnectRule, window_ns: int) -> None:
        super().__init__(rule, window_ns)
        self._counts = SessionCounts(rule.acceptable_count, window_ns)

    def detect(self, batch: EventBatch) -> Sequence[Finding]:
        if not batch.tools & abi.TOOL_RECONNECT:
            return ()
        lost = np.flatnonzero(batch.events["tool"] & abi.TOOL_RECONNECT)
        times = batch.times_ns(lost)
        found = self._counts.add(times, batch.sessions(lost))
        return [
            Finding(int(times[index]), detail=Loss(connection, _host(batch.events[lost[index]])))
            for connection, index in found.items()
            if index is not None
        ]

    def server(self, finding: Finding, scene: Scene) -> str:
        loss = finding.detail
        assert isinstance(loss, Loss)  # noqa: S101 - made above
        host = scene.snapshot.hosts.get(loss.connection) or loss.host
        if len(host.encode()) not in CUT_LENGTHS:
            return host
        names = [name for name in scene.state.server_names() if name.startswith(host)]
        return names[0] if len(names) == 1 else host

    def describe(self, finding: Finding, scene: Scene) -> Trigger:
        loss = finding.detail
        assert isinstance(loss, Loss)  # noqa: S101 - made above
        host = self.server(finding, scene) or f"number {loss.connection}"
        losses = scene.window(finding.time_ns, self.window_ns, loss.connection).events
        losses = losses[(losses["tool"] & abi.TOOL_RECONNECT) > 0]
        times = f" {len(losses)} times in {seconds(self.window_ns)}" if len(losses) > 1 else ""
        return Trigger(
            time_ns=finding.time_ns,
            reason=f"connection to {host} lost{times}",
            violations=len(losses),
            place=Place(server=host),
        )


def _host(event: np.void) -> str:
    return bytes(event["task"]).decode("utf-8", "replace")


def read(section: Section, name: str, actions: tuple[str, ...]) -> ReconnectRule:
    """A reconnect rule of the configuration."""
    return ReconnectRule(name=name, actions=actions, acceptable_count=acceptable_count(section, 1))


RECONNECT = AnomalyType("reconnect", read)
