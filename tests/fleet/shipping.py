"""What the tests of the roles shipper and relay share: a release, keys of a bucket, bundles."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent.storage.spool import ARCHIVE, DONE
from shipper.configuration.schema import S3Destination
from shipper.s3.bucket_setup import BucketSetup
from tests.fleet.host import FleetHost
from tests.minio_server import MinioServer
from tests.s3_support import temporary_key
from tests.shipper_support import add_bundle, new_spool, wait_for

VERSION = "0.1.0"

# As aod-agent makes them; there is none on these hosts.
_SPOOL = """
groupadd --system --force aod
install -d -m 0750 -g aod /var/log/aod
install -d -m 3770 -g aod /var/log/aod/batches
install -d -m 0700 /var/log/aod/staging
"""
# In the order of the agent: who sees the manifest finds the archive.
_BUNDLE = """
umask 027
cd /var/log/aod/batches
base64 -d <<< {archive} > {id}.tar.zst
base64 -d <<< {done} > .{id}.new
mv .{id}.new {id}.done
"""
# What an uninstallation is to leave as it was, as one text.
_TRACES = r"""
find /etc /opt /usr /var/lib /srv -xdev \( ! -type d -o -path '*aod*' \) -printf '%p %M %u %g\n'
cat /etc/passwd /etc/group
systemctl list-unit-files --no-legend --no-pager | awk '{print $1, $2}'
systemctl list-units --all --no-legend --no-pager --plain 'aod-*'
"""
# Written anew with every user that is made: the state of the tools, not of the host.
_OF_TOOLS = ("/etc/passwd-", "/etc/group-", "/etc/shadow-", "/etc/gshadow-", "/etc/.pwd.lock")


class BucketKey:
    """A key for ``bucket`` that may do what `aod-shipper bucket-policy` prints, and no more."""

    def __init__(self, minio: MinioServer, bucket: str) -> None:
        self.destination = {
            "type": "s3",
            "bucket": bucket,
            "endpoint_url": minio.endpoint_url,
            "region": "us-east-1",
            "addressing_style": "path",
        }
        settings = S3Destination(bucket=bucket, endpoint_url=minio.endpoint_url)
        policy = BucketSetup(settings, "", None).documents()["shipper"]
        self.parts = temporary_key(minio, json.dumps(policy))

    def variables(self) -> dict[str, str]:
        """As an inventory's vault has them."""
        names = ("access_key_id", "secret_access_key", "session_token")
        return {f"shipper_s3_{name}": part for name, part in zip(names, self.parts, strict=True)}


def quick(destination: Mapping[str, Any], **settings: Any) -> dict[str, Any]:
    """A shipper_config that does not make a test wait."""
    return {"destination": dict(destination), "start_jitter_sec": 0, **settings}


def make_spool(host: FleetHost) -> None:
    host.run(_SPOOL)


def put_bundle(host: FleetHost, directory: Path) -> str:
    """A finished bundle in the host's spool; its id."""
    bundle = add_bundle(new_spool(directory / f"spool-of-{host.name}"), host=host.name)
    archive, done = (
        base64.b64encode(path.read_bytes()).decode()
        for path in (bundle.batches / f"{bundle.id}{suffix}" for suffix in (ARCHIVE, DONE))
    )
    host.run(_BUNDLE.format(archive=archive, done=done, id=bundle.id))
    return bundle.id


def wait_for_bundle(minio: MinioServer, bucket: str, host: FleetHost, bundle_id: str) -> None:
    """Until archive and manifest are in the bucket, under the host's own name."""

    def arrived() -> bool:
        keys = [key for key in minio.keys(bucket) if bundle_id in key]
        return len(keys) == 2 and all(key.startswith(f"{host.name}/") for key in keys)

    try:
        wait_for(arrived, f"{bundle_id} of {host.name}")
    except AssertionError as error:
        log = host.run("journalctl --no-pager -u aod-shipper | tail -50", check=False).stdout
        raise AssertionError(f"{error}: {minio.keys(bucket)}\n{log}") from error


def traces(host: FleetHost) -> set[str]:
    """Files, users, groups and units, line by line: to be compared before and after."""
    lines = set(host.run(_TRACES).stdout.splitlines())
    return {line for line in lines if not line.startswith(_OF_TOOLS)}


def main_process(host: FleetHost, unit: str = "aod-shipper") -> int:
    shown = host.run(["systemctl", "show", "--value", "--property=MainPID", unit]).stdout
    return int(shown)
