"""Builds the agent's `Config` from YAML. A file written for the reference loads unchanged."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from agent.anomaly_types.guardian import ACTIONS, DEFAULT_ACTIONS, read_actions, read_guardian
from agent.configuration.schema import (
    ActionLimits,
    AuditConfig,
    CleanupConfig,
    CollectionConfig,
    Config,
    WatcherConfig,
)
from agent.configuration.settings_reader import ConfigError, Fault, Section, read_settings

__all__ = ["ConfigError", "Fault", "LoadedConfig", "load_config"]


@dataclass(frozen=True)
class LoadedConfig:
    """The settings, and what was doubtful about the file."""

    config: Config
    warnings: tuple[Fault, ...]


def load_config(path: Path) -> LoadedConfig:
    """Read and check ``path``; raises `ConfigError` with every fault in it.

    Keys that the agent does not know are warned about, because the reference ignored them.
    """
    root = read_settings(path)
    watcher = _watcher(root.section("watcher"))
    output_dir = root.absolute_path("aod_output_dir", "/var/log/aod")
    bounds = root.section("cleanup")
    cleanup = _cleanup(bounds, output_dir)
    spool_mb = cleanup.max_total_log_size_mb if bounds.clean else math.inf
    config = Config(
        watch_interval_sec=root.number("watch_interval_sec", 1.0, minimum=0.1, maximum=3600),
        aod_output_dir=output_dir,
        watcher=watcher,
        guardian=read_guardian(root.section("guardian"), watcher.actions),
        collection=_collection(root.section("collection"), spool_mb),
        cleanup=cleanup,
        audit=AuditConfig(root.section("audit").boolean("enabled", AuditConfig.enabled)),
    )
    return LoadedConfig(config, root.finish())


def _watcher(section: Section) -> WatcherConfig:
    return WatcherConfig(
        actions=read_actions(section) if "actions" in section else DEFAULT_ACTIONS,
        batch_min_events=section.integer(
            "batch_min_events", WatcherConfig.batch_min_events, minimum=1, maximum=1_000_000
        ),
        batch_max_wait_sec=section.number(
            "batch_max_wait_sec", WatcherConfig.batch_max_wait_sec, minimum=0.001, maximum=60
        ),
        batch_linger_sec=section.number(
            "batch_linger_sec", WatcherConfig.batch_linger_sec, minimum=0, maximum=1
        ),
        flight_recorder_events=section.integer(
            "flight_recorder_events",
            WatcherConfig.flight_recorder_events,
            minimum=1_000,
            maximum=10_000_000,
        ),
        incident_quiet_sec=section.number(
            "incident_quiet_sec", WatcherConfig.incident_quiet_sec, minimum=1, maximum=86_400
        ),
        incident_followup_sec=section.number(
            "incident_followup_sec",
            WatcherConfig.incident_followup_sec,
            minimum=10,
            maximum=7 * 86_400,
        ),
        incident_max_followups=section.integer(
            "incident_max_followups", WatcherConfig.incident_max_followups, minimum=0, maximum=1_000
        ),
    )


def _collection(section: Section, spool_mb: float) -> CollectionConfig:
    return CollectionConfig(
        max_concurrent=section.integer(
            "max_concurrent", CollectionConfig.max_concurrent, minimum=1, maximum=64
        ),
        action_timeout_sec=section.number(
            "action_timeout_sec", CollectionConfig.action_timeout_sec, minimum=0.1, maximum=600
        ),
        action_max_output_mb=section.number(
            "action_max_output_mb",
            CollectionConfig.action_max_output_mb,
            minimum=0.01,
            maximum=1024,
        ),
        after_sec=section.number("after_sec", CollectionConfig.after_sec, minimum=0, maximum=60),
        compression_level=section.integer(
            "compression_level", CollectionConfig.compression_level, minimum=1, maximum=19
        ),
        compression_threads=section.integer(
            "compression_threads", CollectionConfig.compression_threads, minimum=0, maximum=16
        ),
        limits=_limits(section, ACTIONS),
        pseudonyms=section.boolean("pseudonyms", CollectionConfig.pseudonyms),
        max_bundle_mb=_max_bundle_mb(section, spool_mb),
    )


def _limits(section: Section, actions: Collection[str]) -> dict[str, ActionLimits]:
    """Limits by action; what an entry leaves out is as for all."""
    found = {}
    for name, own in section.sections("limits").items():
        if name not in actions:
            own.fault_here("is not an action", f"Use one of {', '.join(actions)}.")
        found[name] = ActionLimits(
            own.number("timeout_sec", minimum=0.1, maximum=600) if "timeout_sec" in own else None,
            own.number("max_output_mb", minimum=0.01, maximum=1024)
            if "max_output_mb" in own
            else None,
        )
    return found


def _max_bundle_mb(section: Section, spool_mb: float) -> float:
    """At most the spool's size: as a default lowered to it, as a setting refused above it."""
    default = min(CollectionConfig.max_bundle_mb, spool_mb)
    size_mb = section.number("max_bundle_mb", default, minimum=0.1, maximum=10_000_000)
    if size_mb > spool_mb:
        section.fault(
            "max_bundle_mb",
            f"a bundle of {size_mb:g} MB does not fit into a spool of {spool_mb:g} MB",
            f"Use at most cleanup.max_total_log_size_mb, which is {spool_mb:g}.",
        )
    return size_mb


def _cleanup(section: Section, output_dir: Path) -> CleanupConfig:
    if "aod_output_dir" in section:
        own = section.absolute_path("aod_output_dir")
        if own != output_dir and section.clean:
            section.warn(
                "aod_output_dir",
                f"is ignored: the directory cleaned is {output_dir}",
                "Set aod_output_dir at the top level, and remove it here.",
            )
    return CleanupConfig(
        max_log_age_days=section.number(
            "max_log_age_days", CleanupConfig.max_log_age_days, minimum=0.01, maximum=3650
        ),
        max_total_log_size_mb=section.number(
            "max_total_log_size_mb",
            CleanupConfig.max_total_log_size_mb,
            minimum=0.1,
            maximum=10_000_000,
        ),
        cleanup_interval_sec=section.number(
            "cleanup_interval_sec", CleanupConfig.cleanup_interval_sec, minimum=0.1, maximum=86_400
        ),
        min_free_mb=section.number(
            "min_free_mb", CleanupConfig.min_free_mb, minimum=0, maximum=10_000_000
        ),
    )
