"""The filter aod.fleet.outcomes; outcomes.yml has its words."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ansible_collections.aod.fleet.plugins.plugin_utils.fleet_report import outcome_of


def outcomes(hosts: Iterable[str], hostvars: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Of those of ``hosts`` whose turn has come."""
    found = (outcome_of(hostvars[host]) for host in hosts)
    return [outcome for outcome in found if outcome]


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """By name."""
        return {"outcomes": outcomes}
