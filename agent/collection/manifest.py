"""What a bundle says of itself: manifest.json, and later the done-marker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from agent.collection.evidence_files import iso_time, without_bells
from agent.collection.quick_action import ActionResult, QuickAction
from agent.collection.surroundings import HostFacts
from agent.configuration.smb_commands import command_name
from agent.detection.anomaly import Aftermath, AnomalyAction

# Where it lies in a bundle, before all else.
FIRST_MEMBER = "manifest.json"
MANIFEST_SCHEMA = 1

Manifest = dict[str, Any]


@dataclass(frozen=True)
class Collected:
    """The outcome of an order's actions: results, start and how long they took.

    ``started_ns`` is by the wall clock, the moments ``first_action_ns`` and ``ended_ns`` are of
    CLOCK_MONOTONIC. ``duration_sec`` counts without the time that the collection only waited.
    """

    results: Sequence[ActionResult]
    started_ns: int
    first_action_ns: int
    ended_ns: int
    duration_sec: float


def draft_manifest(
    order: AnomalyAction, host: HostFacts, actions: Sequence[QuickAction]
) -> Manifest:
    """Of a bundle whose collection has only begun: `UnfinishedBundles` publishes it if it never
    ends."""
    return {
        **_order_fields(order, host),
        "interrupted": True,
        "events": len(without_bells(order.evidence.events)),
        "events_after": 0,
        "actions": [
            asdict(ActionResult(action.name, action.output, "interrupted")) for action in actions
        ],
    }


def whole_manifest(
    order: AnomalyAction, host: HostFacts, aftermath: Aftermath, collected: Collected
) -> Manifest:
    """Of a bundle whose collection was finished."""
    after = len(without_bells(aftermath.events))
    return {
        **_order_fields(order, host),
        "interrupted": False,
        "events": len(without_bells(order.evidence.events)) + after,
        "events_after": after,
        "actions": [asdict(result) for result in collected.results],
        "collection": {
            "started": iso_time(collected.started_ns),
            "duration_sec": round(collected.duration_sec, 3),
            "delay_ms": _delay_ms(order, collected),
        },
    }


def _order_fields(order: AnomalyAction, host: HostFacts) -> Manifest:
    incident, offset_ns = order.incident, order.evidence.wall_offset_ns
    return {
        "schema": MANIFEST_SCHEMA,
        "id": order.id,
        "host": host.name,
        "kernel": host.kernel,
        "agent_version": host.agent_version,
        "anomaly": order.anomaly.name,
        "type": order.anomaly.type,
        "created": iso_time(order.wall_ns),
        "reason": order.trigger.reason,
        "label": order.label,
        "trigger": {**asdict(order.trigger), "command": _command(order)},
        "incident": {
            "id": incident.incident_id,
            "bundle": incident.number,
            "cause": incident.cause,
            "opened": iso_time(incident.opened_ns + offset_ns),
        },
        "clock": {"wall_minus_monotonic_ns": offset_ns},
        "source": order.evidence.source,
        "counters": order.evidence.counters,
    }


def _delay_ms(order: AnomalyAction, collected: Collected) -> float | None:
    """From the trigger to the first action; None where they are of different clocks."""
    if not order.live:
        return None
    return round((collected.first_action_ns - order.trigger.time_ns) / 1_000_000, 1)


def _command(order: AnomalyAction) -> str | None:
    number = order.trigger.command
    return None if number is None else command_name(number)
