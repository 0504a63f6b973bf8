"""Where bundles go: what every kind of store has to do."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Protocol

from agent.service.stop_signal import StopSignal
from shipper.configuration.schema import (
    AnyDestination,
    DirectoryDestination,
    S3Destination,
    ShipperConfig,
)
from shipper.destinations.delivery import Delivery
from shipper.destinations.document import Document
from shipper.destinations.finding import Preflight
from shipper.destinations.object_key import heartbeat_key
from shipper.destinations.pace import make_pace


class Destination(Preflight, Protocol):
    """A store, which can tell whether it is ready. Many threads at once, never two with the same
    bundle."""

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


def open_destination(config: ShipperConfig, stop: StopSignal) -> Destination:
    """The store that the configuration names; touches neither the network nor the disk.

    ``stop`` ends what can be gone on with later.
    """
    return _open(config.destination, config, stop)


def _open(settings: AnyDestination, config: ShipperConfig, stop: StopSignal) -> Destination:
    """Each kind is imported only where it is used: that spares a directory botocore."""
    pace = make_pace(config.limits, stop)
    if isinstance(settings, DirectoryDestination):
        from shipper.destinations.directory_destination import DirectoryBucket

        return DirectoryBucket(settings.path, pace)
    if isinstance(settings, S3Destination):
        from shipper.s3.bucket import S3Bucket

        return S3Bucket(settings, heartbeat_key(config.prefix, socket.gethostname()), pace, stop)
    from shipper.destinations.relay_destination import RelayInbox

    relay = RelayInbox(settings, stop, pace.bytes_per_second if pace else 0)
    if settings.fallback is None:
        return relay
    from shipper.destinations.fallback_destination import FallbackDestination

    another = _open(settings.fallback, config, stop)
    return FallbackDestination(
        relay, another, settings.fallback_after_sec, config.retry.max_pause_sec
    )
