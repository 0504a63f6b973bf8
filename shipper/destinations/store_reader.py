"""Reading a store: for those that check what lies there. The shipper itself never does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from agent.service.stop_signal import StopSignal
from shipper.configuration.schema import (
    DirectoryDestination,
    RelayDestination,
    S3Destination,
    ShipperConfig,
)
from shipper.destinations.destination import open_destination
from shipper.faults import DestinationFault

DOCUMENT_LIMIT = 16 << 20


class ReadDeniedFault(DestinationFault):
    """The key, or the user, may not read there."""


@dataclass(frozen=True)
class StoredObject:
    """``size`` in bytes; ``sha256`` is None where the store keeps none."""

    size: int
    sha256: str | None


@dataclass(frozen=True)
class StoredDocument:
    """A small object's content, and when it came by the store's clock (seconds since the epoch)."""

    content: bytes
    modified: float


class StoreReader(Protocol):
    """Many threads. Every method raises ReadDeniedFault, NetworkFault or DestinationFault."""

    def look(self, key: str) -> StoredObject | None:
        """What lies under ``key``, as cheaply as the store tells; None: nothing."""

    def digest(self, key: str) -> StoredObject | None:
        """The same with the sha256 of the bytes themselves, all of which are read."""

    def read(self, key: str) -> StoredDocument | None:
        """An object of at most `DOCUMENT_LIMIT` bytes; of a larger one, more than that."""

    def folders(self, prefix: str) -> list[str]:
        """Names of the folders below ``prefix``, which is empty or ends in a slash."""


def open_readers(config: ShipperConfig) -> Mapping[str, StoreReader]:
    """A reader for each store that bundles of this host reach without a relay, by its description
    in receipts; touches neither the network nor the disk."""
    destination = config.destination
    store = destination.fallback if isinstance(destination, RelayDestination) else destination
    if store is None:
        return {}
    description = open_destination(replace(config, destination=store), StopSignal()).description
    return {description: _open(store, description, config)}


def _open(
    store: DirectoryDestination | S3Destination, description: str, config: ShipperConfig
) -> StoreReader:
    if isinstance(store, DirectoryDestination):
        from shipper.destinations.directory_reader import DirectoryReader

        return DirectoryReader(store.path)
    # Only here, so that a directory needs neither boto3 nor its start-up time.
    from shipper.s3.reader import S3Reader

    return S3Reader(store, description, config.retry)
