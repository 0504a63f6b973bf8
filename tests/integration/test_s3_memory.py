"""What the S3 destination takes of a host while it sends, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from shipper.s3.multipart import PART_SIZE
from tests.s3_support import Stores
from tests.shipper_support import PROBE_KEY, add_bundle, new_spool

pytestmark = pytest.mark.minio

LIMIT_MB = 80
# As the shipper starts: its command line and configuration, then threads that deliver.
DELIVER = """
import sys
import threading
from pathlib import Path

from agent.service.stop_signal import StopSignal
from agent.storage.spool import Spool
from shipper.configuration.loader import load_config
from shipper.destinations.delivery import read_delivery
from shipper.destinations.destination import open_destination

config = load_config(Path(sys.argv[1])).config
store = open_destination(config, StopSignal())
faults = []

def deliver(bundle):
    for _ in range(2):  # the second time the store's bytes are compared
        try:
            store.deliver(read_delivery(bundle, config.prefix))
        except Exception as fault:
            faults.append(fault)

threads = [
    threading.Thread(target=deliver, args=(bundle,)) for bundle in Spool(config.spool).pending()
]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert not faults, faults
(peak,) = (line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(int(peak) // 1024)
"""


def test_four_large_archives_at_once_stay_below_the_limit(minio, tmp_path):
    spool = new_spool(tmp_path / "spool")
    bundles = [add_bundle(spool, os.urandom(3 * PART_SIZE + 5)) for _ in range(4)]
    bucket = minio.create_bucket()
    settings = Stores(minio, bucket, tmp_path).config()
    config = tmp_path / "shipper.yaml"
    config.write_text(
        f"spool: {spool.root}\ndestination:\n  type: s3\n  bucket: {bucket}\n"
        f"  endpoint_url: {settings.endpoint_url}\n"
        f"  credentials_file: {settings.credentials_file}\n"
    )
    child = subprocess.run(
        [sys.executable, "-c", DELIVER, config], capture_output=True, text=True, check=False
    )
    assert child.returncode == 0, child.stderr
    assert len(minio.keys(bucket)) == 2 * len(bundles)
    assert int(child.stdout) < LIMIT_MB


def test_new_clients_cost_no_memory(minio, tmp_path):
    """An outage in which every attempt is refused makes a client for each."""
    bucket = minio.create_bucket()
    settings = Stores(minio, bucket, tmp_path).config()
    code = f"""
from pathlib import Path
from shipper.configuration.schema import S3Destination
from shipper.destinations.document import Document
from shipper.faults import DestinationFault
from shipper.s3.bucket import S3Bucket

def resident():
    (line,) = (one for one in open("/proc/self/status") if one.startswith("VmRSS"))
    return int(line.split()[1]) // 1024

store = S3Bucket(
    S3Destination("no-such-bucket", {settings.endpoint_url!r},
                  credentials_file=Path({str(settings.credentials_file)!r})), {PROBE_KEY!r})
for attempt in range(150):
    try:
        store.put_document(Document("heartbeat", "x", "x", b"x"))
    except DestinationFault:
        pass
    else:
        raise AssertionError
    if attempt == 1:
        before = resident()
print(resident() - before)
"""
    child = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert child.returncode == 0, child.stderr
    assert int(child.stdout) < 10
