"""Builds the shipper's `ShipperConfig` from YAML; a credential in the file is refused."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from agent.configuration.settings_document import quoted
from agent.configuration.settings_reader import ConfigError, Fault, Section, read_settings
from shipper.config_schema import DirectoryDestination, RetryConfig, S3Destination, ShipperConfig

__all__ = ["ConfigError", "Fault", "LoadedShipperConfig", "load_config"]

_BUCKET = re.compile(r"(?!.*\.\.)[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_BUCKET_RULE = "3 to 63 lower-case letters, digits, dots and hyphens, as S3 wants bucket names"
_REGION = re.compile(r"[a-z0-9-]{1,64}")
_PREFIX = re.compile(r"(?!.*(?:^|/)\.{1,2}(?:/|$))[A-Za-z0-9._=-]+(?:/[A-Za-z0-9._=-]+)*/?")
_SECRET_NAME = re.compile(
    r"access_?key|secret|passw|passphrase|token|credential|api_?key|private_?key|session_?key"
)
_SECRET_VALUE = re.compile(r"://[^/?#]*@|\b(?:AKIA|ASIA)[0-9A-Z]{16}\b")
_CREDENTIALS_CURE = (
    "Remove it, replace that credential, and put the new one into the file that "
    "destination.credentials_file names, into systemd's LoadCredential=s3-credentials:..., "
    "or where boto3 looks by itself."
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
        destination=_destination(root.section("destination"), spool),
        prefix=root.text(
            "prefix", "", pattern=_PREFIX, wanted="names joined by `/`, such as fleet/berlin"
        ).rstrip("/"),
        scan_interval_sec=root.number(
            "scan_interval_sec", ShipperConfig.scan_interval_sec, minimum=0.1, maximum=86_400
        ),
        retry=_retry(root.section("retry")),
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


def _destination(section: Section, spool: Path) -> DirectoryDestination | S3Destination:
    kind = section.choice("type", ("directory", "s3"))
    if not section.clean:
        section.skip_rest()
        return DirectoryDestination(Path())
    if kind == "s3":
        return _s3(section)
    path = section.absolute_path("path")
    if section.clean and (path == spool or spool in path.parents):
        section.fault(
            "path", "lies in the spool, where bundles are cleaned up", "Use a directory outside."
        )
    return DirectoryDestination(path)


def _s3(section: Section) -> S3Destination:
    endpoint = _endpoint(section) if "endpoint_url" in section else None
    ca_bundle = _optional_path(section, "ca_bundle")
    if ca_bundle and endpoint and urlsplit(endpoint).scheme == "http":
        section.warn("ca_bundle", "has no effect without TLS", "Use https in endpoint_url.")
    return S3Destination(
        bucket=_bucket(section),
        endpoint_url=endpoint,
        region=section.text("region", pattern=_REGION, wanted="a region such as eu-central-1")
        if "region" in section
        else None,
        ca_bundle=ca_bundle,
        credentials_file=_optional_path(section, "credentials_file"),
        addressing_style=section.choice(
            "addressing_style", ("auto", "path", "virtual"), S3Destination.addressing_style
        ),
        connect_timeout_sec=section.number(
            "connect_timeout_sec", S3Destination.connect_timeout_sec, minimum=0.1, maximum=300
        ),
        read_timeout_sec=section.number(
            "read_timeout_sec", S3Destination.read_timeout_sec, minimum=0.1, maximum=300
        ),
    )


def _bucket(section: Section) -> str:
    bucket = section.text("bucket", pattern=_BUCKET, wanted=_BUCKET_RULE)
    if _is_address(bucket):
        section.fault("bucket", f"{bucket} is an address, not a bucket", f"Use {_BUCKET_RULE}.")
    return bucket


def _endpoint(section: Section) -> str:
    wanted = "a URL such as https://minio.example.com:9000"
    text = section.text("endpoint_url", wanted=wanted)
    url = _split(text)
    if not section.clean:
        return text
    if url is None or url.scheme not in ("http", "https") or not url.hostname or " " in text:
        section.fault(
            "endpoint_url", f"{quoted(text)} is not an http or https URL", f"Use {wanted}."
        )
    elif url.path.strip("/") or url.query or url.fragment:
        section.fault(
            "endpoint_url",
            "has a path, which no S3 store takes here",
            "End it after the host and port; the bucket has a key of its own.",
        )
    elif url.scheme == "http" and not _is_loopback(url.hostname):
        section.warn("endpoint_url", "sends bundles over the network in clear", "Use https.")
    return text


def _split(text: str) -> SplitResult | None:
    """The parts of a URL; None when there is no sense in it, such as port 99999."""
    try:
        url = urlsplit(text)
        _ = url.port
    except ValueError:
        return None
    return url


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _is_loopback(host: str) -> bool:
    return host == "localhost" or (_is_address(host) and ip_address(host).is_loopback)


def _optional_path(section: Section, name: str) -> Path | None:
    return section.absolute_path(name) if name in section else None


def _retry(section: Section) -> RetryConfig:
    retry = RetryConfig(
        attempts=section.integer("attempts", RetryConfig.attempts, minimum=1, maximum=100),
        initial_wait_sec=section.number(
            "initial_wait_sec", RetryConfig.initial_wait_sec, minimum=0, maximum=3600
        ),
        max_wait_sec=section.number(
            "max_wait_sec", RetryConfig.max_wait_sec, minimum=0, maximum=3600
        ),
    )
    if section.clean and retry.max_wait_sec < retry.initial_wait_sec:
        section.fault(
            "max_wait_sec",
            f"is less than initial_wait_sec ({retry.initial_wait_sec:g})",
            f"Use {retry.initial_wait_sec:g} or more.",
        )
    return retry
