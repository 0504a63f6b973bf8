"""What every detector provides."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from agent.configuration.schema import AnomalyConfig
from agent.detection.anomaly import Trigger
from agent.detection.event_batch import EventBatch
from agent.detection.scene import Scene
from agent.detection.sight import Sight

R = TypeVar("R", bound=AnomalyConfig)


@dataclass(frozen=True)
class Finding:
    """An anomaly: when, and whose; ``session_id`` is 0 where the kernel does not tell. ``detail``
    is for the detector's own use."""

    time_ns: int
    session_id: int = 0
    detail: object = None


class AnomalyHandler(ABC, Generic[R]):
    """A detector for one rule; used by a single thread, keeps what spans batches and looks.

    A detector of events overrides `detect`; one that has to look at the kernel's memory while
    commands are under way sets ``looks`` and overrides `look` and `next_look_ns`. All times are
    nanoseconds of CLOCK_MONOTONIC.
    """

    looks = False
    #: How long commands may flow without a look, when none is due earlier.
    rest_ns = 60_000_000_000

    def __init__(self, rule: R, window_ns: int) -> None:
        self.rule = rule
        self.window_ns = window_ns

    def detect(self, batch: EventBatch) -> Sequence[Finding]:
        """Look at the next events: in order of arrival, every event once.

        At most one finding for each session: the first anomaly that is complete. A command number
        outside the table is possible input, never an error.
        """
        return ()

    def stands(self, finding: Finding, scene: Scene) -> bool:
        """Whether what `detect` found is an anomaly beside all that happened at that time."""
        return True

    def look(self, sight: Sight) -> Sequence[Finding]:
        """Look at the kernel's memory as it is at ``sight.time_ns``."""
        return ()

    def next_look_ns(self, sight: Sight) -> int | None:
        """When the next look is due, after what ``sight`` shows; None: when a command starts."""
        return None

    def server(self, finding: Finding, scene: Scene) -> str:
        """The name of the server that is to blame; empty when nobody can tell."""
        return scene.state.server_of(finding.session_id)

    @abstractmethod
    def describe(self, finding: Finding, scene: Scene) -> Trigger:
        """Say what was found; called for findings that get a bundle only."""
