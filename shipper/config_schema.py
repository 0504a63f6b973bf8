"""The shipper's configuration as the program sees it: frozen, typed, complete.

`shipper.config_loader` makes these from YAML; nothing else does.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class DirectoryDestination:
    """A directory as bucket: the embedded default, no server needed."""

    path: Path


@dataclass(frozen=True)
class S3Destination:
    """A bucket of any S3-compatible store. Credentials never stand here.

    They come from ``credentials_file`` (AWS format), from ``s3-credentials`` in systemd's
    credentials directory, or from boto3's own chain, in this order.
    """

    bucket: str
    endpoint_url: str | None = None
    region: str | None = None
    ca_bundle: Path | None = None
    credentials_file: Path | None = None
    addressing_style: str = "auto"
    connect_timeout_sec: float = 5.0
    read_timeout_sec: float = 30.0


@dataclass(frozen=True)
class RetryConfig:
    """Exponential backoff with full jitter, per bundle and round."""

    attempts: int = 5
    initial_wait_sec: float = 1.0
    max_wait_sec: float = 60.0


@dataclass(frozen=True)
class ShipperConfig:
    """All settings of the shipper; ``spool`` is the agent's ``aod_output_dir``."""

    spool: Path
    destination: DirectoryDestination | S3Destination
    prefix: str = ""
    scan_interval_sec: float = 30.0
    retry: RetryConfig = field(default_factory=RetryConfig)
