"""What every anomaly type provides."""

from __future__ import annotations

from abc import ABC, abstractmethod

from agent.configuration.schema import AnomalyConfig
from agent.detection.anomaly import Trigger
from agent.detection.event_batch import EventBatch


class AnomalyHandler(ABC):
    """A detector for one rule; used by a single thread, keeps what spans batches."""

    def __init__(self, rule: AnomalyConfig, window_ns: int) -> None:
        self.rule = rule
        self.window_ns = window_ns

    @abstractmethod
    def detect(self, batch: EventBatch) -> int | None:
        """Look at the next events: in order of arrival, every event once.

        Returns the end time in nanoseconds of the command that completed an anomaly, if any did.
        A command number outside the table is possible input, never an error.
        """

    @abstractmethod
    def describe(self, window: EventBatch, time_ns: int) -> Trigger:
        """Say what `detect` just found; called for new incidents only.

        ``window``: what the recorder holds from the beginning of the window on.
        """
