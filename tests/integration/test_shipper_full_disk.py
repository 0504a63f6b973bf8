"""A spool whose disk is really full, or read-only: it takes no receipt, and no state either."""

import os
import subprocess

import pytest

from shipper.configuration.schema import DirectoryDestination, ShipperConfig
from shipper.destinations.directory_destination import DirectoryBucket
from shipper.status.shipper_state import IDLE, ShipperState, StateFile
from shipper.status.status import read_status
from tests.shipper_support import NOON, add_bundle, make_shipper, new_spool

NOW = NOON / 1000 + 60

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting a tmpfs needs root")


@pytest.fixture
def disk(tmp_path):
    path = tmp_path / "disk"
    path.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", path], check=False)
    if mounted.returncode != 0:
        pytest.skip("this machine does not let root mount a tmpfs")
    yield path
    subprocess.run(["umount", path], check=True)


def fill(disk):
    status = os.statvfs(disk)
    (disk / "filler").write_bytes(b"x" * status.f_bavail * status.f_frsize)
    return (disk / "filler").unlink


def make_read_only(disk):
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    return lambda: subprocess.run(["mount", "-o", "remount,rw", disk], check=True)


@pytest.mark.parametrize(
    ("spoil", "reason", "remedy"),
    [
        (fill, "No space left on device", "make room"),
        (make_read_only, "Read-only file system", "mount it writable"),
    ],
)
def test_status_tells_why_the_spool_takes_no_receipt(disk, tmp_path, spoil, reason, remedy):
    spool = new_spool(disk / "spool")
    config = ShipperConfig(spool.root, DirectoryDestination(tmp_path / "bucket"))
    add_bundle(spool, time_ms=NOON)
    StateFile(spool.batches).write(ShipperState(IDLE))
    mend = spoil(disk)
    shipper = make_shipper(spool, DirectoryBucket(tmp_path / "bucket"))
    message = shipper.ship_pending().fault.message
    assert reason in message
    (fault,) = read_status(config, "store", NOW).state.faults
    assert (fault.kind, fault.message) == ("host", message)
    assert remedy in fault.remedy
    mend()
    assert read_status(config, "store", NOW).state.faults == []
    assert shipper.ship_pending().complete
