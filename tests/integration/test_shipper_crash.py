"""Kills, other users and full disks: nothing is lost, nothing is doubled."""

import os
import signal
import stat
import subprocess
import sys
import traceback

import pytest

from agent.service.stop_signal import StopSignal
from agent.storage.spool import BATCHES_MODE, SHIPPED
from agent.storage.tombstone import make_tombstone
from shipper.destinations.directory_destination import DirectoryBucket
from shipper.faults import DestinationFault, HostFault
from shipper.status.shipper_state import StateFile
from tests.requirements import skip_or_fail
from tests.shipper_support import (
    NOON,
    FaultyDestination,
    TcpGate,
    add_bundle,
    delivery_of,
    make_shipper,
    new_spool,
    run_shipper,
    serve,
    shipper_command,
    wait_for,
    write_key,
)

NOBODY = 65534
SPOOL_GROUP = 54321


@pytest.fixture
def spool(tmp_path):
    return new_spool(tmp_path / "spool")


@pytest.fixture
def s3_config(minio, spool, tmp_path):
    """A function that writes a configuration for a bucket of MinIO behind an endpoint."""

    def write(bucket, endpoint_url):
        key = write_key(
            tmp_path / "key",
            f"aws_access_key_id = {minio.access_key}",
            f"aws_secret_access_key = {minio.secret_key}",
        )
        path = tmp_path / "shipper.yaml"
        path.write_text(
            f"spool: {spool.root}\ndestination:\n  type: s3\n  bucket: {bucket}\n"
            f"  endpoint_url: {endpoint_url}\n  addressing_style: path\n"
            f"  credentials_file: {key}\n"
        )
        return path

    return write


@pytest.mark.minio
@pytest.mark.parametrize(
    ("hold", "stored"), [(1, []), (2, ["archive"])], ids=["before the archive", "before manifest"]
)
def test_killed_in_the_middle_and_run_again(minio, spool, s3_config, hold, stored):
    bucket = minio.create_bucket()
    bundle = add_bundle(spool, os.urandom(50_000))
    keys = delivery_of(bundle).keys
    with TcpGate(minio.port, hold) as gate:
        config = s3_config(bucket, gate.endpoint_url)
        process = subprocess.Popen(
            shipper_command("once", "--config", config),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            wait_for(gate.held.is_set, "the request on which the shipper is killed")
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
    assert minio.keys(bucket) == [getattr(keys, name) for name in stored]
    assert spool.counts().pending == 1
    result = run_shipper("once", "--config", s3_config(bucket, minio.endpoint_url))
    assert result.returncode == 0, result.stderr
    assert minio.keys(bucket) == sorted([keys.archive, keys.manifest])
    assert minio.read(bucket, keys.archive) == bundle.archive.read_bytes()
    assert minio.read(bucket, keys.manifest) == bundle.done.read_bytes()
    assert len(list(spool.batches.glob(f"*{SHIPPED}"))) == 1


DIES_AT_RENAME = """
import os, pathlib, signal, sys
from shipper.cli import main

number, moment, config = int(sys.argv[1]), sys.argv[2], sys.argv[3]
rename, seen = pathlib.Path.rename, []

def deadly(path, target):
    seen.append(target)
    if len(seen) == number and moment == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    rename(path, target)
    if len(seen) == number and moment == "after":
        os.kill(os.getpid(), signal.SIGKILL)

pathlib.Path.rename = deadly
sys.exit(main(["once", "--config", config]))
"""


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("number", [1, 2, 3], ids=["archive", "manifest", "receipt"])
def test_killed_at_a_rename_and_run_again(spool, tmp_path, number, moment):
    bundle = add_bundle(spool, os.urandom(50_000))
    bucket, config = tmp_path / "bucket", tmp_path / "shipper.yaml"
    config.write_text(f"spool: {spool.root}\ndestination:\n  type: directory\n  path: {bucket}\n")
    command = [sys.executable, "-c", DIES_AT_RENAME, str(number), moment, str(config)]
    killed = subprocess.run(command, capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    keys = delivery_of(bundle).keys
    if (bucket / keys.manifest).exists():
        assert (bucket / keys.archive).read_bytes() == bundle.archive.read_bytes()
    assert spool.path(bundle.id, SHIPPED).exists() == ((number, moment) == (3, "after"))
    assert spool.counts().made == 1
    again = run_shipper("once", "--config", config)
    assert again.returncode == 0, again.stderr
    found = sorted(str(path.relative_to(bucket)) for path in bucket.rglob("*") if path.is_file())
    assert found == sorted([keys.archive, keys.manifest])
    assert (bucket / keys.archive).read_bytes() == bundle.archive.read_bytes()
    assert (bucket / keys.manifest).read_bytes() == bundle.done.read_bytes()
    assert spool.counts().delivered == 1


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("number", [1, 2], ids=["tombstone", "note"])
def test_killed_while_it_tells_of_an_eviction_and_run_again(spool, tmp_path, number, moment):
    bundle = add_bundle(spool)
    keys = delivery_of(bundle).keys
    spool.remove(bundle, make_tombstone(bundle, bundle.manifest(), "2026-01-02T03:04:05+00:00"))
    bucket, config = tmp_path / "bucket", tmp_path / "shipper.yaml"
    config.write_text(f"spool: {spool.root}\ndestination:\n  type: directory\n  path: {bucket}\n")
    command = [sys.executable, "-c", DIES_AT_RENAME, str(number), moment, str(config)]
    killed = subprocess.run(command, capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    told = bucket / (keys.manifest.removesuffix(".json") + ".evicted.json")
    before = told.read_bytes() if told.exists() else None
    assert bool(spool.undelivered_tombstones()) == ((number, moment) != (2, "after"))
    again = run_shipper("once", "--config", config)
    assert again.returncode == 0, again.stderr
    assert [path for path in bucket.rglob("*") if path.is_file()] == [told]
    assert before in (None, told.read_bytes())
    assert spool.undelivered_tombstones() == []
    assert not [path for path in spool.batches.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("moment", ["before", "after"])
def test_killed_while_it_marks_a_bad_bundle_and_run_again(spool, tmp_path, moment):
    bundle = add_bundle(spool)
    bundle.archive.write_bytes(b"evidenc3")
    config = tmp_path / "shipper.yaml"
    config.write_text(
        f"spool: {spool.root}\ndestination:\n  type: directory\n  path: {tmp_path / 'bucket'}\n"
    )
    command = [sys.executable, "-c", DIES_AT_RENAME, "1", moment, str(config)]
    killed = subprocess.run(command, capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert spool.counts().quarantined == (moment == "after")
    assert run_shipper("once", "--config", config).returncode == 1
    assert (spool.counts().quarantined, spool.counts().made) == (1, 1)
    bundle.archive.write_bytes(b"evidence")
    assert run_shipper("once", "--config", config).returncode == 0
    assert (spool.counts().delivered, spool.quarantined()) == (1, set())
    assert not [path for path in spool.batches.iterdir() if path.name.startswith(".")]


@pytest.fixture
def root_user():
    if os.geteuid() != 0:
        skip_or_fail("changes users and mounts: needs root")


needs_root = pytest.mark.usefixtures("root_user")


def as_nobody(groups, function):
    """Run ``function`` in a child without privileges; its exit code."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setgroups(groups)
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            function()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.fixture
def shared_spool(public_directory):
    """A spool as the agent's unit makes it: of root and one group."""
    spool = new_spool(public_directory / "spool")
    for path in (spool.root, spool.batches):
        os.chown(path, 0, SPOOL_GROUP)
    spool.batches.chmod(BATCHES_MODE)
    bucket = public_directory / "bucket"
    bucket.mkdir()
    os.chown(bucket, NOBODY, NOBODY)
    return spool


@needs_root
def test_unprivileged_user_of_the_group_ships_but_cannot_remove(shared_spool):
    bundle = add_bundle(shared_spool)
    bucket = shared_spool.root.parent / "bucket"

    def ship():
        assert make_shipper(shared_spool, DirectoryBucket(bucket)).ship_pending().complete
        for path in (bundle.archive, bundle.done):
            with pytest.raises(PermissionError):
                path.unlink()
            with pytest.raises(PermissionError):
                path.write_bytes(b"forged")

    assert as_nobody([SPOOL_GROUP], ship) == 0
    receipt = shared_spool.path(bundle.id, SHIPPED).stat()
    assert (receipt.st_uid, receipt.st_gid) == (NOBODY, SPOOL_GROUP)
    assert stat.S_IMODE(receipt.st_mode) == 0o640
    assert (bucket / delivery_of(bundle).keys.archive).read_bytes() == b"evidence"


@needs_root
def test_what_root_ran_by_hand_does_not_lock_the_service_out(shared_spool, tmp_path):
    bundle = add_bundle(shared_spool)
    config = tmp_path / "shipper.yaml"
    config.write_text(
        f"spool: {shared_spool.root}\ndestination:\n  type: directory\n  path: /dev/null/bucket\n"
    )
    assert run_shipper("once", "--config", config).returncode == 1
    leftover = shared_spool.batches / f".{bundle.id}{SHIPPED}.0badcafe.tmp"
    leftover.write_bytes(b"of root, who was killed")
    stop = StopSignal()

    class RefusesTheLast(FaultyDestination):
        def deliver(self, delivery):
            stop.set()
            return super().deliver(delivery)

    def run():
        bucket = shared_spool.root.parent / "bucket"
        destination = RefusesTheLast(bucket, DestinationFault("denied", "allow it"))
        serve(shared_spool, destination, stop)
        faults = StateFile(shared_spool.batches).read().faults
        assert [fault.message for fault in faults] == ["denied"]

    assert as_nobody([SPOOL_GROUP], run) == 0


@needs_root
def test_unprivileged_user_marks_and_tells_and_takes_its_own_marks_back(shared_spool):
    bad, evicted = add_bundle(shared_spool), add_bundle(shared_spool)
    of_root = add_bundle(shared_spool)
    bad.archive.write_bytes(b"evidenc3")
    of_root.archive.write_bytes(b"evidenc3")
    shared_spool.mark_quarantined(of_root.id, {"reason": "root ran it by hand"})
    shared_spool.remove(evicted, make_tombstone(evicted, evicted.manifest(), "then"))
    bucket = DirectoryBucket(shared_spool.root.parent / "bucket")

    def ship():
        summary = make_shipper(shared_spool, bucket).ship_pending()
        assert [one.bundle_id for one in summary.tombstones] == [evicted.id]
        assert shared_spool.counts().quarantined == 2

    def ship_repaired():
        assert make_shipper(shared_spool, bucket).ship_pending().complete
        assert shared_spool.quarantined() == {of_root.id}
        counts = shared_spool.counts()
        assert (counts.delivered, counts.evicted, counts.quarantined) == (2, 1, 0)

    assert as_nobody([SPOOL_GROUP], ship) == 0
    for bundle in (bad, of_root):
        bundle.archive.write_bytes(b"evidence")
    assert as_nobody([SPOOL_GROUP], ship_repaired) == 0


@needs_root
def test_user_outside_the_group_is_told_so(shared_spool):
    add_bundle(shared_spool)
    bucket = shared_spool.root.parent / "bucket"

    def ship():
        summary = make_shipper(shared_spool, DirectoryBucket(bucket)).ship_pending()
        assert isinstance(summary.fault, HostFault)
        assert "group" in summary.fault.remedy

    assert as_nobody([], ship) == 0


@needs_root
def test_unreadable_bundle_is_told_apart(shared_spool):
    good, closed = add_bundle(shared_spool, time_ms=NOON), add_bundle(shared_spool)
    closed.archive.chmod(0o600)
    bucket = shared_spool.root.parent / "bucket"

    def ship():
        summary = make_shipper(shared_spool, DirectoryBucket(bucket)).ship_pending()
        assert [outcome.bundle_id for outcome in summary.shipped] == [good.id]
        assert "Permission denied" in summary.passed_over[0].fault.message

    assert as_nobody([SPOOL_GROUP], ship) == 0


@needs_root
def test_destination_that_may_not_be_written_is_a_destination_fault(shared_spool):
    add_bundle(shared_spool)
    bucket = shared_spool.root.parent / "bucket"
    os.chown(bucket, 0, 0)

    def ship():
        summary = make_shipper(shared_spool, DirectoryBucket(bucket)).ship_pending()
        assert isinstance(summary.fault, DestinationFault)
        assert "write permission" in summary.fault.remedy

    assert as_nobody([SPOOL_GROUP], ship) == 0


@pytest.fixture
def tiny_bucket(tmp_path):
    """A file system of 256 KiB."""
    directory = tmp_path / "tiny"
    directory.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(directory)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        skip_or_fail("no file system can be mounted here")
    yield directory
    subprocess.run(["umount", str(directory)], check=True)


@needs_root
def test_full_disk_pauses_and_leaves_no_half_file(spool, tiny_bucket):
    small = add_bundle(spool, os.urandom(10_000), NOON + 1)
    large = add_bundle(spool, os.urandom(500_000), NOON)
    summary = make_shipper(spool, DirectoryBucket(tiny_bucket)).ship_pending()
    assert [outcome.bundle_id for outcome in summary.shipped] == [small.id]
    assert isinstance(summary.fault, DestinationFault)
    assert "room" in summary.fault.remedy
    assert not [path for path in tiny_bucket.rglob("*") if large.id in path.name]
    assert spool.counts().pending == 1
