"""The configuration as the program sees it: frozen, typed, complete.

`agent.config_loader` makes these from YAML; nothing else does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class AnomalyConfig:
    """One rule under ``guardian.anomalies``; every anomaly type adds settings of its own.

    ``window_sec``: the window in which it counts; None: the general ``watch_interval_sec``.
    """

    type: ClassVar[str]
    name: str
    actions: tuple[str, ...] = ()
    window_sec: float | None = None

    def ask_kernel(self, settings: NDArray[np.void]) -> None:
        """Add to ``settings`` (one `bpf.abi.SETTINGS` record) what this rule needs events for."""

    def detector(self, window_ns: int) -> object:
        """A fresh `agent.detection.anomaly_handler.AnomalyHandler` for this rule."""
        raise NotImplementedError(self.type)


@dataclass(frozen=True)
class WatcherConfig:
    """How events are gathered, and which actions rules may name."""

    actions: tuple[str, ...]
    batch_min_events: int = 10
    batch_max_wait_sec: float = 3.0
    batch_linger_sec: float = 0.005
    flight_recorder_events: int = 65_536
    incident_quiet_sec: float = 60.0
    incident_followup_sec: float = 600.0
    incident_max_followups: int = 6


@dataclass(frozen=True)
class GuardianConfig:
    """The rules by name."""

    anomalies: Mapping[str, AnomalyConfig]


@dataclass(frozen=True)
class ActionLimits:
    """Of one action, in place of those for all; None: as for all."""

    timeout_sec: float | None = None
    max_output_mb: float | None = None


@dataclass(frozen=True)
class CollectionConfig:
    """Limits of one collection.

    ``max_bundle_mb``: of a bundle's files together, before compression; never more than
    ``cleanup.max_total_log_size_mb``. ``compression_threads``: 0 compresses in the thread that
    collects.
    """

    max_concurrent: int = 4
    action_timeout_sec: float = 20.0
    action_max_output_mb: float = 16.0
    after_sec: float = 2.0
    compression_level: int = 3
    compression_threads: int = 0
    limits: Mapping[str, ActionLimits] = field(default_factory=dict)
    pseudonyms: bool = False
    max_bundle_mb: float = 64.0


@dataclass(frozen=True)
class CleanupConfig:
    """Bounds of the spool, and of what it may leave free on its file system (0: no floor)."""

    max_log_age_days: float = 2.0
    max_total_log_size_mb: float = 200.0
    cleanup_interval_sec: float = 60.0
    min_free_mb: float = 200.0


@dataclass(frozen=True)
class AuditConfig:
    """Whether anomalies, collections, restarts and configuration loads go to the journal."""

    enabled: bool = True


@dataclass(frozen=True)
class Config:
    """All settings of the agent."""

    watch_interval_sec: float
    aod_output_dir: Path
    watcher: WatcherConfig
    guardian: GuardianConfig
    collection: CollectionConfig = field(default_factory=CollectionConfig)
    cleanup: CleanupConfig = field(default_factory=CleanupConfig)
    audit: AuditConfig = field(default_factory=AuditConfig)
