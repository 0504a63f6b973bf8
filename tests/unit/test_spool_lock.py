import subprocess
import sys
from pathlib import Path

import pytest

from shipper.configuration.schema import DirectoryDestination, ShipperConfig
from shipper.faults import HostFault
from shipper.spools.spool_lock import ShippingLock, SpoolLock
from shipper.spools.state_directory import STATE_FILE
from tests.shipper_support import add_bundle, new_spool

HOLDS = """
import sys
from pathlib import Path
from shipper.spools.spool_lock import SpoolLock

with SpoolLock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def spool(tmp_path):
    return new_spool(tmp_path / "spool")


def test_second_shipper_is_told_who_has_the_spool(spool):
    with subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(spool.batches)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(HostFault, match=rf"(\b{holder.pid}|another aod-shipper) ships .*spool"):
            SpoolLock(spool.batches).take()
        holder.kill()
        holder.wait()
    with SpoolLock(spool.batches):
        pass


def descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


def test_lock_leaves_no_file_and_no_descriptor(spool):
    before = descriptors()
    for _ in range(3):
        with SpoolLock(spool.batches) as lock:
            lock.take()
            with pytest.raises(HostFault):
                SpoolLock(spool.batches).take()
    assert descriptors() == before
    assert list(spool.batches.iterdir()) == []


def test_spool_that_comes_later_or_anew_is_taken_too(spool, tmp_path):
    spool.root.rename(tmp_path / "moved")
    with SpoolLock(spool.batches) as lock:
        for _ in range(2):
            spool.prepare()
            lock.take()
            with pytest.raises(HostFault):
                SpoolLock(spool.batches).take()
            spool.batches.rename(spool.root / f"old-{len(list(spool.root.iterdir()))}")
            lock.take()


def test_what_a_killed_shipper_left_goes_and_nothing_else(spool):
    bundle = add_bundle(spool)
    leftovers = [
        spool.batches / f".{bundle.id}.shipped.0badcafe.tmp",
        spool.batches / f".{bundle.id}.uploading.0badcafe.tmp",
        spool.batches / f".{STATE_FILE}.0badcafe.tmp",
    ]
    others = [
        spool.batches / f".{bundle.id}.tar.zst.0badcafe.tmp",
        spool.batches / f".{bundle.id}.done.0badcafe.tmp",
        spool.batches / STATE_FILE,
    ]
    for path in leftovers + others:
        path.write_bytes(b"x")
    with SpoolLock(spool.batches) as lock:
        assert {path.name for path in spool.batches.iterdir()} == {
            bundle.archive.name,
            bundle.done.name,
            *(path.name for path in others),
        }
        leftovers[0].write_bytes(b"in progress")
        lock.take()
        assert leftovers[0].exists(), "cleared once, not under the shipper's own hands"


def test_what_a_killed_shipper_left_in_an_inbox_goes_too(spool, tmp_path):
    inbox = new_spool(tmp_path / "inbox" / "web-1")
    bundle = add_bundle(inbox)
    leftover = inbox.batches / f".{bundle.id}.shipped.0123abcd.tmp"
    leftover.write_bytes(b"{")
    config = ShipperConfig(spool.root, DirectoryDestination(tmp_path), tmp_path / "inbox")
    with ShippingLock(config):
        assert not leftover.exists()
    assert bundle.done.exists()
