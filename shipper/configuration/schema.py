"""The shipper's configuration as the program sees it: frozen, typed, complete.

`shipper.configuration.loader` makes these from YAML; nothing else does.
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
    credentials directory, or from botocore's own chain, in this order. ``encryption`` is that of
    the objects at rest: AES256, or aws:kms with ``kms_key_id`` (without: the store's own key).
    """

    bucket: str
    endpoint_url: str | None = None
    region: str | None = None
    ca_bundle: Path | None = None
    credentials_file: Path | None = None
    addressing_style: str = "auto"
    encryption: str | None = None
    kms_key_id: str | None = None
    tags: tuple[tuple[str, str], ...] = ()
    connect_timeout_sec: float = 5.0
    read_timeout_sec: float = 30.0


@dataclass(frozen=True)
class RelayDestination:
    """The inbox of a central shipper, by rsync over ssh. The key stands in ``identity_file``;
    ``known_hosts_file`` holds the relay's host key, and no other host key is trusted.

    With ``fallback``, bundles go there once the relay has failed for ``fallback_after_sec``;
    without, they wait.
    """

    host: str
    identity_file: Path
    known_hosts_file: Path
    port: int = 22
    user: str = "aod-relay"
    connect_timeout_sec: float = 10.0
    read_timeout_sec: float = 60.0
    fallback: DirectoryDestination | S3Destination | None = None
    fallback_after_sec: float = 3600.0


AnyDestination = DirectoryDestination | S3Destination | RelayDestination


@dataclass(frozen=True)
class RetryConfig:
    """Exponential backoff with full jitter: between the attempts at one bundle in a round, and
    between the rounds while something is in the way of all. No bundle is ever given up."""

    attempts: int = 3
    initial_wait_sec: float = 1.0
    max_wait_sec: float = 20.0
    initial_pause_sec: float = 5.0
    max_pause_sec: float = 300.0


@dataclass(frozen=True)
class LimitsConfig:
    """What the shipper may take of host and network. ``bandwidth_mb_per_sec``: 0 is no limit."""

    concurrency: int = 4
    bandwidth_mb_per_sec: float = 0.0


@dataclass(frozen=True)
class MetricsConfig:
    """Where Prometheus finds the figures: a textfile collector's ``file``, a ``port`` of
    loopback (0: none)."""

    file: Path | None = None
    port: int = 0


@dataclass(frozen=True)
class ShipperConfig:
    """All settings of the shipper.

    ``spool`` is the agent's ``aod_output_dir``; ``inbox`` is where a relay puts the bundles of
    other hosts. ``heartbeat_interval_sec``: 0 is none.
    """

    spool: Path
    destination: AnyDestination
    inbox: Path | None = None
    prefix: str = ""
    scan_interval_sec: float = 300.0
    start_jitter_sec: float = 30.0
    heartbeat_interval_sec: float = 900.0
    retry: RetryConfig = field(default_factory=RetryConfig)
    limits: LimitsConfig = field(default_factory=LimitsConfig)
    metrics: MetricsConfig = field(default_factory=MetricsConfig)
