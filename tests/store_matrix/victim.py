"""What is spoilt: a shipper with a spool in which there is a bundle of each kind.

All that the matrix assumes of the shipper's insides stands in this module.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from agent.storage.spool import Spool
from shipper.configuration.schema import S3Destination
from shipper.s3 import bucket, multipart
from shipper.s3.bucket import S3Bucket
from shipper.shipping.outcome import Outcome
from shipper.shipping.shipper import Shipper
from tests.shipper_support import PROBE_KEY, make_shipper

# The smallest that a store takes, so that a run is short.
PART_SIZE = 5 << 20
THREE_PARTS = 2 * PART_SIZE + 1000
REGION = "us-east-1"
CONNECT_TIMEOUT_SEC = 30.0


@contextlib.contextmanager
def small_parts() -> Iterator[None]:
    """Archives above `PART_SIZE` go in parts of this size, one after the other."""
    with (
        mock.patch.object(multipart, "PART_SIZE", PART_SIZE),
        mock.patch.object(bucket, "PART_SIZE", PART_SIZE),
    ):
        yield


@dataclass(frozen=True)
class Store:
    """As the shipper is told of it; ``key_file`` holds the server's own key."""

    bucket: str
    endpoint_url: str
    key_file: Path
    ca_bundle: Path | None = None
    read_timeout_sec: float = 30.0

    def new_shipper(self, spool: Spool, on_outcome: Callable[[Outcome], None]) -> Shipper:
        """In this process."""
        config = S3Destination(
            bucket=self.bucket,
            endpoint_url=self.endpoint_url,
            region=REGION,
            ca_bundle=self.ca_bundle,
            credentials_file=self.key_file,
            addressing_style="path",
            connect_timeout_sec=CONNECT_TIMEOUT_SEC,
            read_timeout_sec=self.read_timeout_sec,
        )
        return make_shipper(spool, S3Bucket(config, PROBE_KEY), on_outcome=on_outcome)

    def new_command(self, spool: Spool) -> list[str]:
        """``aod-shipper once`` with small parts; its configuration lies beside the spool."""
        path = spool.root.with_suffix(".yaml")
        path.write_text(
            f"spool: {spool.root}\ndestination:\n  type: s3\n  bucket: {self.bucket}\n"
            f"  endpoint_url: {self.endpoint_url}\n  region: {REGION}\n"
            f"  credentials_file: {self.key_file}\n  addressing_style: path\n"
            "limits: {concurrency: 1}\n"
            "retry:\n  initial_wait_sec: 0.001\n  max_wait_sec: 0.01\n"
        )
        module = "tests.store_matrix.shipper_process"
        return [sys.executable, "-m", module, "once", "--config", str(path)]
