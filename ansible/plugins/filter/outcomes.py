"""The filters aod.fleet.outcomes and aod.fleet.failure; the .yml of each has its words."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ansible_collections.aod.fleet.plugins.plugin_utils.fleet_report import (
    NOT_BEGUN,
    failure_of,
    outcome_of,
    row_of,
)


def outcomes(hosts: Iterable[str], hostvars: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Of those of ``hosts`` whose turn has come."""
    found = (outcome_of(hostvars[host]) for host in hosts)
    return [outcome for outcome in found if outcome]


def failure(host: str, hostvars: Mapping[str, Mapping[str, Any]]) -> str:
    """Empty for none."""
    return failure_of(row_of(host, hostvars[host], NOT_BEGUN))


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """By name."""
        return {"failure": failure, "outcomes": outcomes}
