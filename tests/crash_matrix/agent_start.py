"""The part of the agent's start that touches the spool."""

from __future__ import annotations

from pathlib import Path

from agent.collection.surroundings import Surroundings
from agent.collection.unfinished_bundles import UnfinishedBundles
from agent.configuration.schema import CollectionConfig
from agent.storage.spool import Spool


def start(root: Path) -> Spool:
    """As `Controller.start` does it. Raises OSError."""
    spool = Spool(root)
    spool.prepare()
    spool.recover()
    list(unfinished(spool).recover())
    return spool


def unfinished(spool: Spool) -> UnfinishedBundles:
    """What a killed run left in staging."""
    return UnfinishedBundles(spool, Surroundings(), CollectionConfig)
