"""Where bundles go: the one thing that every kind of store has to do."""

from __future__ import annotations

from typing import Protocol

from shipper.config_schema import S3Destination, ShipperConfig
from shipper.delivery import Delivery
from shipper.directory_destination import DirectoryBucket


class Destination(Protocol):
    """A store. One thread at a time."""

    @property
    def description(self) -> str:
        """The store in words, without secrets."""

    def deliver(self, delivery: Delivery) -> None:
        """Store the archive, then its manifest; on return both are durable.

        May be repeated: the same bytes go to the same keys. Raises BundleFault when the archive
        is not the promised one, HostFault when it cannot be read, NetworkFault when a later try
        may succeed, DestinationFault when somebody has to act first.
        """

    def put_document(self, key: str, document: bytes) -> None:
        """Store a small JSON document; on return it is durable. As `deliver` in all the rest."""


def open_destination(config: ShipperConfig) -> Destination:
    """The store that the configuration names; touches neither the network nor the disk."""
    if isinstance(config.destination, S3Destination):
        # Only here, so that a directory destination needs neither boto3 nor its start-up time.
        from shipper.s3_destination import S3Bucket

        return S3Bucket(config.destination)
    return DirectoryBucket(config.destination.path)
