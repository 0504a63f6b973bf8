"""Where bundles go: what every kind of store has to do."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Protocol

from shipper.config_schema import DirectoryDestination, RelayDestination, ShipperConfig
from shipper.delivery import Delivery
from shipper.directory_destination import DirectoryBucket
from shipper.document import Document
from shipper.object_key import heartbeat_key
from shipper.pace import Pace


class Destination(Protocol):
    """A store. Many threads at once, never two with the same bundle."""

    @property
    def description(self) -> str:
        """The store in words, without secrets."""

    def deliver(self, delivery: Delivery) -> str:
        """Store the archive, then its manifest; on return both are durable. Where, in words.

        May be repeated: the same bytes go to the same keys. Raises BundleFault when the archive
        is not the promised one, HostFault when it cannot be read, NetworkFault when a later try
        may succeed, DestinationFault when somebody has to act first.
        """

    def put_document(self, document: Document) -> None:
        """Store a small JSON document; on return it is durable. As `deliver` in all the rest."""

    def abandon(self, note: Path) -> None:
        """The bundle that ``note`` (``<id>.uploading``) tells of is gone: clear what of it lies
        unfinished in the store. Raises as `deliver`, but for BundleFault."""


def open_destination(config: ShipperConfig, pace: Pace | None = None) -> Destination:
    """The store that the configuration names; touches neither the network nor the disk.

    ``pace`` limits what deliveries take of the network.
    """
    if isinstance(config.destination, DirectoryDestination):
        return DirectoryBucket(config.destination.path, pace)
    if isinstance(config.destination, RelayDestination):
        raise NotImplementedError("relay")
    # Only here, so that a directory destination needs neither botocore nor its start-up time.
    from shipper.s3.bucket import S3Bucket

    return S3Bucket(config.destination, heartbeat_key(config.prefix, socket.gethostname()), pace)
