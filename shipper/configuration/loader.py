"""Builds the shipper's `ShipperConfig` from YAML; a credential in the file is refused."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from agent.configuration.settings_reader import ConfigError, Fault, Section, read_settings
from shipper.configuration.destination_settings import read_destination
from shipper.configuration.schema import LimitsConfig, MetricsConfig, RetryConfig, ShipperConfig

__all__ = ["ConfigError", "Fault", "LoadedShipperConfig", "load_config"]

_PREFIX = re.compile(r"(?!.*(?:^|/)\.{1,2}(?:/|$))[A-Za-z0-9._=-]+(?:/[A-Za-z0-9._=-]+)*/?")
_SECRET_NAME = re.compile(
    r"access_?key|secret|passw|passphrase|token|credential|api_?key|private_?key|session_?key"
)
_SECRET_VALUE = re.compile(r"://[^/?#]*@|\b(?:AKIA|ASIA)[0-9A-Z]{16}\b")
_CREDENTIALS_CURE = (
    "Remove it, replace that credential, and put the new one into the file that "
    "destination.credentials_file names, into systemd's LoadCredential=s3-credentials:..., "
    "or where botocore looks by itself."
)


@dataclass(frozen=True)
class LoadedShipperConfig:
    """The settings, and what was doubtful about the file."""

    config: ShipperConfig
    warnings: tuple[Fault, ...]


def load_config(path: Path) -> LoadedShipperConfig:
    """Read and check ``path``; raises `ConfigError` with every fault in it.

    Unknown keys are faults: a misspelt ``endpoint_url`` would send evidence to another store.
    When there is a credential in the file, that is the only fault, and its value is not repeated.
    """
    root = read_settings(path)
    _refuse_credentials(root, str(path))
    spool = root.absolute_path("spool", "/var/log/aod")
    config = ShipperConfig(
        spool=spool,
        destination=read_destination(root.section("destination"), spool),
        inbox=_inbox(root, spool),
        prefix=root.text(
            "prefix", "", pattern=_PREFIX, wanted="names joined by `/`, such as fleet/berlin"
        ).rstrip("/"),
        scan_interval_sec=root.number(
            "scan_interval_sec", ShipperConfig.scan_interval_sec, minimum=0.1, maximum=86_400
        ),
        start_jitter_sec=root.number(
            "start_jitter_sec", ShipperConfig.start_jitter_sec, minimum=0, maximum=3600
        ),
        heartbeat_interval_sec=root.number(
            "heartbeat_interval_sec",
            ShipperConfig.heartbeat_interval_sec,
            minimum=0,
            maximum=86_400,
        ),
        retry=_retry(root.section("retry")),
        limits=_limits(root.section("limits")),
        metrics=_metrics(root.section("metrics")),
    )
    return LoadedShipperConfig(config, root.finish(unknown_keys_are_faults=True))


def _refuse_credentials(root: Section, file: str) -> None:
    faults = tuple(
        Fault(file, entry.line, key, "a credential does not belong here", _CREDENTIALS_CURE)
        for key, name, entry in root.walk()
        if _is_secret_name(name) or _SECRET_VALUE.search(entry.text)
    )
    if faults:
        raise ConfigError(tuple(sorted(faults, key=lambda fault: fault.line or 0)))


def _is_secret_name(name: str) -> bool:
    plain = name.lower().replace("-", "_")
    return plain != "credentials_file" and _SECRET_NAME.search(plain) is not None


def _inbox(root: Section, spool: Path) -> Path | None:
    if "inbox" not in root:
        return None
    inbox = root.absolute_path("inbox")
    if root.clean and (inbox == spool or inbox in spool.parents or spool in inbox.parents):
        root.fault("inbox", "and the spool lie in each other", "Use a directory of its own.")
    return inbox


def _retry(section: Section) -> RetryConfig:
    waits = {
        name: section.number(name, getattr(RetryConfig, name), minimum=0, maximum=86_400)
        for name in ("initial_wait_sec", "max_wait_sec", "initial_pause_sec", "max_pause_sec")
    }
    for first, last in (
        ("initial_wait_sec", "max_wait_sec"),
        ("initial_pause_sec", "max_pause_sec"),
    ):
        if section.clean and waits[last] < waits[first]:
            limit = f"{waits[first]:g}"
            section.fault(last, f"is less than {first} ({limit})", f"Use {limit} or more.")
    attempts = section.integer("attempts", RetryConfig.attempts, minimum=1, maximum=100)
    return RetryConfig(attempts, **waits)


def _limits(section: Section) -> LimitsConfig:
    return LimitsConfig(
        concurrency=section.integer("concurrency", LimitsConfig.concurrency, minimum=1, maximum=32),
        bandwidth_mb_per_sec=section.number(
            "bandwidth_mb_per_sec", LimitsConfig.bandwidth_mb_per_sec, minimum=0, maximum=100_000
        ),
    )


def _metrics(section: Section) -> MetricsConfig:
    return MetricsConfig(
        file=section.absolute_path("file") if "file" in section else None,
        port=section.integer("port", MetricsConfig.port, minimum=0, maximum=65_535),
    )
