"""The two ways from a host to the bucket, as an engineer writes them into an inventory."""

from __future__ import annotations

from typing import Any, Literal

from tests.minio_server import MinioServer
from tests.vm.machine import HOST_ADDRESS

Variables = dict[str, Any]
Topology = Literal["direct", "central"]
TOPOLOGIES: tuple[Topology, ...] = ("direct", "central")

INBOX = "/var/lib/aod/inbox"
PREFIX = "lab"

# Emulated machines that share two processors are slow: the limit lies far above their commands,
# and a service that starts gets its time.
_AGENT: Variables = {
    "agent_health_timeout_sec": 240,
    "agent_config": {
        "watcher": {"batch_max_wait_sec": 0.05, "incident_quiet_sec": 15},
        "guardian": {
            "anomalies": {
                "slow_commands": {
                    "type": "latency",
                    "tool": "smbslower",
                    "acceptable_count": 3,
                    "default_threshold_ms": 1000,
                    "exclude_commands": ["SMB2_CHANGE_NOTIFY", "SMB2_LOCK", "SMB2_ECHO"],
                }
            }
        },
    },
}
_SHIPPER: Variables = {"prefix": PREFIX, "scan_interval_sec": 5, "start_jitter_sec": 0}


def group_variables(
    topology: Topology, minio: MinioServer, bucket: str, relay: str
) -> dict[str, Variables]:
    """By group's name. ``relay`` is the central host's name on the fleet's network."""
    store = {
        "type": "s3",
        "bucket": bucket,
        "region": "us-east-1",
        "endpoint_url": f"http://{HOST_ADDRESS}:{minio.port}",
        "addressing_style": "path",
    }
    keys = {
        "shipper_s3_access_key_id": minio.access_key,
        "shipper_s3_secret_access_key": minio.secret_key,
    }
    if topology == "direct":
        shipper = {"shipper_config": {**_SHIPPER, "destination": store}, **keys}
        return {"aod_clients": {**_AGENT, **shipper}}
    inbox = {"shipper_config": {**_SHIPPER, "inbox": INBOX, "destination": store}, **keys}
    push = {"shipper_config": {**_SHIPPER, "destination": {"type": "relay", "host": relay}}}
    return {"aod_clients": {**_AGENT, **push}, "aod_relays": inbox}
