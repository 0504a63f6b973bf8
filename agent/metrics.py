"""The status as Prometheus text exposition, for node_exporter's textfile collector."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent.prometheus_text import COUNTER, GAUGE, Metric, exposition, single

FATES = ("delivered", "pending", "evicted", "quarantined")
LOSSES = ("ring_full", "bad_records")


def metrics_text(status: Mapping[str, Any] | None) -> str:
    """``status`` as the agent answers it, in the text format; None: no agent is running."""
    metrics = [single("aod_agent_up", GAUGE, "1: an agent answers.", status is not None)]
    if status is not None:
        for family in (_agent, _events, _incidents, _collections, _spool, _components):
            metrics += family(status)
    return exposition(metrics)


def _agent(status: Mapping[str, Any]) -> list[Metric]:
    watching = status["source"]["state"] == "watching"
    return [
        Metric("aod_agent_info", GAUGE, "The agent's version.", {status["version"]: 1}, "version"),
        single("aod_agent_uptime_seconds", GAUGE, "Since its start.", status["uptime_sec"]),
        single("aod_agent_watching", GAUGE, "1: the probes are attached.", watching),
    ]


def _events(status: Mapping[str, Any]) -> list[Metric]:
    events = status["events"]
    lost = {cause: events[cause] for cause in LOSSES if cause in events}
    return [
        single("aod_smb_commands_total", COUNTER, "SMB commands seen.", events["commands"]),
        single(
            "aod_events_total",
            COUNTER,
            "Slow and failed SMB commands that the kernel program reported.",
            events["dispatched"],
        ),
        Metric("aod_events_lost_total", COUNTER, "Events that were lost.", lost, "cause"),
    ]


def _incidents(status: Mapping[str, Any]) -> list[Metric]:
    incidents = status["incidents"]
    last = len(incidents["open"])
    return [
        single("aod_incidents_total", COUNTER, "Incidents that began.", incidents["opened"]),
        single("aod_incidents_open", GAUGE, "Incidents that last.", last),
        single(
            "aod_incident_triggers_suppressed_total",
            COUNTER,
            "Further triggers of incidents that had their bundle.",
            incidents["suppressed"],
        ),
    ]


def _collections(status: Mapping[str, Any]) -> list[Metric]:
    collections = status["collections"]
    ended = {name: collections[name] for name in ("collected", "failed", "refused")}
    return [
        Metric("aod_collections_total", COUNTER, "Collections by their end.", ended, "result"),
        single("aod_collections_running", GAUGE, "Collections under way.", collections["running"]),
    ]


def _spool(status: Mapping[str, Any]) -> list[Metric]:
    bundles, disk = status["bundles"], status["disk"]
    cleanup = {
        name: status["cleanup"][name]
        for name in ("removed", "evicted", "folded", "spool_recreated", "failed")
    }
    metrics = [
        Metric("aod_cleanup_total", COUNTER, "What cleaning the spool came to.", cleanup, "result"),
        single(
            "aod_spool_readable",
            GAUGE,
            "0: the bundles cannot be counted, and are left out here.",
            not bundles["fault"],
        ),
        single(
            "aod_filesystem_floor_bytes",
            GAUGE,
            "With less free, no bundle is made (cleanup.min_free_mb).",
            disk["floor_bytes"],
        ),
    ]
    if disk["free_bytes"] is not None:
        text = "Free for ordinary users on the spool's file system."
        metrics.append(single("aod_filesystem_free_bytes", GAUGE, text, disk["free_bytes"]))
    return metrics if bundles["fault"] else metrics + _bundles(bundles)


def _bundles(bundles: Mapping[str, Any]) -> list[Metric]:
    """Gauges, although three of the fates are final: a bundle may go from one to another."""
    by_fate = {fate: bundles[fate] for fate in FATES}
    return [
        single("aod_bundles_made", GAUGE, "The sum of aod_bundles.", bundles["made"]),
        Metric("aod_bundles", GAUGE, "Bundles by what became of them.", by_fate, "fate"),
        single("aod_spool_bytes", GAUGE, "Size of all archives here.", bundles["total_bytes"]),
        single(
            "aod_spool_pending_bytes",
            GAUGE,
            "Size of the archives that wait for the shipper.",
            bundles["pending_bytes"],
        ),
    ]


def _components(status: Mapping[str, Any]) -> list[Metric]:
    components = status["components"]
    restarts = {name: state["restarts"] for name, state in components.items()}
    running = {name: state["state"] == "running" for name, state in components.items()}
    text = "Restarts after a fault."
    return [
        Metric("aod_component_restarts_total", COUNTER, text, restarts, "component"),
        Metric("aod_component_running", GAUGE, "1: it runs.", running, "component"),
    ]
