"""The section ``destination`` of the shipper's configuration: one reader for each kind."""

from __future__ import annotations

import re
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from agent.configuration.settings_document import quoted
from agent.configuration.settings_reader import Section
from shipper.configuration.schema import (
    AnyDestination,
    DirectoryDestination,
    RelayDestination,
    S3Destination,
)

_BUCKET = re.compile(r"(?!.*\.\.)[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_BUCKET_RULE = "3 to 63 lower-case letters, digits, dots and hyphens, as S3 wants bucket names"
_REGION = re.compile(r"[a-z0-9-]{1,64}")
_KMS_KEY = re.compile(r"[A-Za-z0-9:/_.-]{1,2048}")
_TAG_NAME = re.compile(r"[\w .:/=+@-]{1,128}")
_TAG_VALUE = re.compile(r"[\w .:/=+@-]{0,256}")
_TAG_LIMIT = 10
_HOST = re.compile(r"[A-Za-z0-9:][A-Za-z0-9.:-]{0,252}")
_USER = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
_STORES = ("directory", "s3")


def read_destination(section: Section, spool: Path) -> AnyDestination:
    """Where bundles of ``spool`` go; what is wrong is noted in ``section``."""
    kind = section.choice("type", (*_STORES, "relay"))
    if not section.clean:
        section.skip_rest()
        return DirectoryDestination(Path())
    return _relay(section, spool) if kind == "relay" else _store(section, kind, spool)


def _store(section: Section, kind: str, spool: Path) -> DirectoryDestination | S3Destination:
    if kind == "s3":
        return _s3(section)
    path = section.absolute_path("path")
    if section.clean and (path == spool or spool in path.parents):
        section.fault(
            "path", "lies in the spool, where bundles are cleaned up", "Use a directory outside."
        )
    return DirectoryDestination(path)


def _relay(section: Section, spool: Path) -> RelayDestination:
    return RelayDestination(
        host=section.text("host", pattern=_HOST, wanted="a host name or address"),
        identity_file=section.absolute_path("identity_file", "/etc/aod/relay/key"),
        known_hosts_file=section.absolute_path("known_hosts_file", "/etc/aod/relay/known_hosts"),
        port=section.integer("port", RelayDestination.port, minimum=1, maximum=65_535),
        user=section.text(
            "user", RelayDestination.user, pattern=_USER, wanted="a user name such as aod-relay"
        ),
        connect_timeout_sec=section.number(
            "connect_timeout_sec", RelayDestination.connect_timeout_sec, minimum=1, maximum=300
        ),
        read_timeout_sec=section.number(
            "read_timeout_sec", RelayDestination.read_timeout_sec, minimum=1, maximum=3600
        ),
        fallback=_fallback(section.section("fallback"), spool) if "fallback" in section else None,
        fallback_after_sec=section.number(
            "fallback_after_sec", RelayDestination.fallback_after_sec, minimum=0, maximum=2_592_000
        ),
    )


def _fallback(section: Section, spool: Path) -> DirectoryDestination | S3Destination:
    kind = section.choice("type", _STORES)
    if not section.clean:
        section.skip_rest()
        return DirectoryDestination(Path())
    return _store(section, kind, spool)


def _s3(section: Section) -> S3Destination:
    endpoint = _endpoint(section) if "endpoint_url" in section else None
    ca_bundle = _optional_path(section, "ca_bundle")
    if ca_bundle and endpoint and urlsplit(endpoint).scheme == "http":
        section.warn("ca_bundle", "has no effect without TLS", "Use https in endpoint_url.")
    encryption = _encryption(section)
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
        encryption=encryption,
        kms_key_id=section.text("kms_key_id", pattern=_KMS_KEY, wanted="the id or ARN of a key")
        if "kms_key_id" in section
        else None,
        tags=_tags(section.section("tags")),
        connect_timeout_sec=section.number(
            "connect_timeout_sec", S3Destination.connect_timeout_sec, minimum=0.1, maximum=300
        ),
        read_timeout_sec=section.number(
            "read_timeout_sec", S3Destination.read_timeout_sec, minimum=0.1, maximum=300
        ),
    )


def _encryption(section: Section) -> str | None:
    if "encryption" not in section:
        kind = None
    else:
        kind = section.choice("encryption", ("AES256", "aws:kms"))
    if "kms_key_id" in section and kind != "aws:kms":
        section.fault("kms_key_id", "is used by aws:kms alone", "Set encryption to aws:kms.")
    return kind


def _tags(section: Section) -> tuple[tuple[str, str], ...]:
    wanted = "up to 256 letters, digits, spaces and _.:/=+-@"
    names = section.key_names()
    if len(names) > _TAG_LIMIT:
        section.fault_here(f"{len(names)} tags", f"S3 takes {_TAG_LIMIT} on an object.")
    for name in names:
        if not _TAG_NAME.fullmatch(name):
            section.fault(name, "is no name for a tag", "Use 1 to 128 " + wanted[10:] + ".")
    return tuple((name, section.text(name, pattern=_TAG_VALUE, wanted=wanted)) for name in names)


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
