"""What one kind of trouble brings along; the registry lists all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from agent.configuration.schema import AnomalyConfig
from agent.configuration.settings_reader import Section


@dataclass(frozen=True)
class AnomalyType:
    """``read`` makes a rule of the section, given its name and actions.

    ``tool`` is the reference's name for the probe; a rule of a type without one needs no ``tool``.
    """

    name: str
    read: Callable[[Section, str, tuple[str, ...]], AnomalyConfig]
    tool: str = ""
