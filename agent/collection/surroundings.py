"""The machine as the collector sees it: its name, where its files are, what to collect."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import agent
from agent.collection.quick_action import QuickAction
from agent.collection.quick_actions import QUICK_ACTIONS
from agent.collection.scene import Roots


@dataclass(frozen=True)
class HostFacts:
    """What a bundle says about the machine it comes from."""

    name: str
    kernel: str
    agent_version: str

    @classmethod
    def of_this_host(cls) -> HostFacts:
        """The host the agent runs on."""
        return cls(socket.gethostname(), os.uname().release, agent.__version__)


def _pseudonym_map() -> Path:
    """In systemd's state directory for the service."""
    return Path(os.environ.get("STATE_DIRECTORY") or "/var/lib/aod/agent") / "pseudonyms.json"


def _always_room(_: int) -> None:
    pass


@dataclass(frozen=True)
class Surroundings:
    """Defaults to the real machine and to all actions; tests replace parts.

    ``room_for_bundle`` raises OSError while the disk has no room for so many bytes.
    """

    host: HostFacts = field(default_factory=HostFacts.of_this_host)
    roots: Roots = field(default_factory=Roots)
    actions: Sequence[QuickAction] = QUICK_ACTIONS
    pseudonym_map: Path = field(default_factory=_pseudonym_map)
    room_for_bundle: Callable[[int], None] = _always_room
