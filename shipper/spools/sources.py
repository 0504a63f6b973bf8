"""What is shipped: this host's own spool and, on a central host, the inbox of each other one."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from agent.storage.spool import Spool
from shipper.configuration.schema import ShipperConfig
from shipper.destinations.object_key import safe_name


@dataclass(frozen=True)
class Source:
    """A spool to ship. ``host`` is whose bundles they are: None for this host's own spool, where
    the manifests say it, and the inbox's name where another host's key opened it."""

    spool: Spool
    host: str | None = None

    @property
    def title(self) -> str:
        """It in words."""
        return f"the inbox of {self.host}" if self.host else "the spool"


def find_sources(config: ShipperConfig) -> list[Source]:
    """The own spool, then the inboxes by name; a missing inbox directory is an empty one.

    Raises OSError when the inbox cannot be listed.
    """
    own = Source(Spool(config.spool))
    if config.inbox is None:
        return [own]
    return [own, *(Source(Spool(config.inbox / host), host) for host in _hosts(config.inbox))]


def _hosts(inbox: Path) -> list[str]:
    try:
        with os.scandir(inbox) as entries:
            names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []
    return sorted(name for name in names if safe_name(name) == name)
