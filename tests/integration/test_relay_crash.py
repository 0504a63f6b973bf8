"""The relay killed, or its disk failing, at every step of what it keeps."""

import hashlib
import json
import stat
from functools import partial

import pytest

from agent.storage.spool import ARCHIVE, DONE, EVICTED
from agent.storage.ulid import new_ulid
from shipper.relay.claim import read_claim
from shipper.relay.commit import commit_bundle, commit_tombstone
from shipper.relay.host_folder import HostFolder
from tests.crash_matrix.disk import Disk
from tests.crash_matrix.operations import operations
from tests.crash_matrix.tracing import read_calls, run_in_child, run_traced

CONTENT = b"evidence" * 1000
KILL = "error=EIO:signal=SIGKILL"
FAULTS = [KILL, "error=EIO", "error=ENOSPC"]


class Arrival:
    """A host's folder into which an archive has come, and what its host asks for now."""

    def __init__(self, inbox):
        inbox.mkdir()
        self.id = new_ulid()
        self.folder = HostFolder(inbox, "web-17")
        self.folder.prepare()
        archive = {"file": f"{self.id}{ARCHIVE}", "size": len(CONTENT)}
        archive["sha256"] = hashlib.sha256(CONTENT).hexdigest()
        self.manifest = json.dumps({"id": self.id, "archive": archive}).encode()
        self.push()

    def push(self):
        """As rsync does: into `incoming`."""
        self.folder.partial(self.id).write_bytes(CONTENT)

    def deliver(self):
        with self.folder.locked():
            commit_bundle(self.folder, read_claim(self.id, self.manifest), self.manifest)

    def bury(self):
        with self.folder.locked():
            commit_tombstone(self.folder, self.id, json.dumps({"id": self.id}).encode())

    def tidy(self):
        with self.folder.locked():
            self.folder.tidy()

    def names(self):
        return {path.name for path in self.folder.spool.batches.iterdir()}

    def check(self):
        """What must hold whenever somebody looks: no half bundle, no marker without its archive."""
        for bundle in self.folder.spool.finished():
            assert bundle.archive.read_bytes() == CONTENT
            assert bundle.done.read_bytes() == self.manifest
            assert stat.S_IMODE(bundle.archive.stat().st_mode) == 0o640
        if f"{self.id}{DONE}" in self.names():
            assert f"{self.id}{ARCHIVE}" in self.names()


def steps(tmp_path, act):
    """Every call of ``act`` on the host's folder, as (name, ordinal)."""
    arrival = Arrival(tmp_path / "clean")
    log = tmp_path / "clean.log"
    assert run_traced(partial(getattr(arrival, act)), log) == 0
    found = operations(read_calls(log), arrival.folder.root)
    return [(step.call.name, step.call.ordinal, str(step)) for step in found]


@pytest.mark.parametrize("fault", FAULTS)
def test_deliver_hit_at_every_step(tmp_path, fault):
    points = steps(tmp_path, "deliver")
    assert {name.partition(" ")[0] for _, _, name in points} > {"rename", "fsync", "create"}
    for number, (call, ordinal, _) in enumerate(points):
        arrival = Arrival(tmp_path / str(number))
        inject = f"{call}:{fault}:when={ordinal}"
        acknowledged = run_traced(arrival.deliver, tmp_path / "log", inject) == 0
        arrival.check()
        if acknowledged:
            assert f"{arrival.id}{DONE}" in arrival.names()
        arrival.tidy()
        arrival.check()
        if not arrival.folder.partial(arrival.id).exists():
            arrival.push()  # as the client does when it asks again
        assert run_in_child(arrival.deliver) == 0
        arrival.check()
        assert arrival.names() == {f"{arrival.id}{ARCHIVE}", f"{arrival.id}{DONE}"}
        assert list(arrival.folder.incoming.iterdir()) == []


def traced(tmp_path, arrival, act):
    """What ``act`` does to the host's folder, with all that it writes."""
    log = tmp_path / "power.log"
    assert run_traced(act, log, limit=1 << 16) == 0
    return operations(read_calls(log), arrival.folder.root)


def is_whole(arrival, image):
    there = [image.get(f"batches/{arrival.id}{suffix}") for suffix in (ARCHIVE, DONE)]
    return there == [CONTENT, arrival.manifest]


def test_the_power_goes_at_every_step(tmp_path):
    arrival = Arrival(tmp_path / "inbox")
    arrival.folder.partial(arrival.id).unlink()
    disk = Disk(arrival.folder.root)

    def push_and_deliver():
        arrival.push()
        arrival.deliver()

    for number, step in enumerate(traced(tmp_path, arrival, push_and_deliver)):
        disk.apply(step)
        for lost, image in disk.images(number):
            marked = f"batches/{arrival.id}{DONE}" in image
            assert not marked or is_whole(arrival, image), (str(step), lost)
    for lost, image in disk.images(0):
        assert is_whole(arrival, image), f"acknowledged, then lost: {lost}"


@pytest.mark.parametrize(("act", "suffix"), [("deliver", DONE), ("bury", EVICTED)])
def test_what_a_killed_session_left_is_durable_when_it_is_acknowledged(tmp_path, act, suffix):
    arrival = Arrival(tmp_path / "inbox")
    disk = Disk(arrival.folder.root)
    for step in traced(tmp_path, arrival, getattr(arrival, act)):
        disk.apply(step)
        if step.kind == "rename" and step.names[-1].endswith(suffix):
            break  # killed here: the name is not on the disk yet
    for step in traced(tmp_path, arrival, getattr(arrival, act)):
        disk.apply(step)
    for lost, image in disk.images(0):
        assert f"batches/{arrival.id}{suffix}" in image, lost


def test_a_failing_disk_costs_no_second_upload(tmp_path):
    """The archive waits in `incoming` when its marker cannot be written."""
    for number, (call, ordinal, name) in enumerate(steps(tmp_path, "deliver")):
        if name.startswith(("create", "write")) and DONE in name:
            arrival = Arrival(tmp_path / str(number))
            run_traced(arrival.deliver, tmp_path / "log", f"{call}:error=ENOSPC:when={ordinal}")
            assert arrival.folder.partial(arrival.id).read_bytes() == CONTENT
            assert arrival.names() == set()
            return
    pytest.fail("no step writes the marker")


@pytest.mark.parametrize("fault", FAULTS)
def test_tombstone_hit_at_every_step(tmp_path, fault):
    for number, (call, ordinal, _) in enumerate(steps(tmp_path, "bury")):
        arrival = Arrival(tmp_path / str(number))
        inject = f"{call}:{fault}:when={ordinal}"
        acknowledged = run_traced(arrival.bury, tmp_path / "log", inject) == 0
        assert not acknowledged or f"{arrival.id}{EVICTED}" in arrival.names()
        arrival.tidy()
        assert run_in_child(arrival.bury) == 0
        assert arrival.names() == {f"{arrival.id}{EVICTED}"}
        assert json.loads(arrival.folder.spool.path(arrival.id, EVICTED).read_bytes())
