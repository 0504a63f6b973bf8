import os
import stat
from pathlib import Path

import pytest

from agent.service.stop_signal import StopSignal
from shipper.destinations.directory_destination import DirectoryBucket
from shipper.destinations.pace import Pace
from shipper.faults import BundleFault, DestinationFault
from tests.shipper_support import add_bundle, delivery_of, new_spool


@pytest.fixture
def spool(tmp_path):
    return new_spool(tmp_path / "spool")


@pytest.fixture
def root(tmp_path):
    return tmp_path / "bucket"


def files_below(root):
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir())


def test_archive_and_manifest_lie_under_their_keys(spool, root):
    content = os.urandom(3 << 20)
    bundle = add_bundle(spool, content)
    delivery = delivery_of(bundle, "fleet")
    DirectoryBucket(root).deliver(delivery)
    assert files_below(root) == sorted([delivery.keys.archive, delivery.keys.manifest])
    assert (root / delivery.keys.archive).read_bytes() == content
    assert (root / delivery.keys.manifest).read_bytes() == bundle.done.read_bytes()


def test_files_are_closed_to_others(spool, root):
    delivery = delivery_of(add_bundle(spool))
    DirectoryBucket(root).deliver(delivery)
    for path in root.rglob("*"):
        assert not stat.S_IMODE(path.stat().st_mode) & 0o027, path


def test_second_delivery_changes_nothing(spool, root):
    delivery = delivery_of(add_bundle(spool))
    for _ in range(2):
        DirectoryBucket(root).deliver(delivery)
        inodes = {path: path.stat().st_ino for path in root.rglob("*")}
    DirectoryBucket(root).deliver(delivery)
    assert inodes == {path: path.stat().st_ino for path in root.rglob("*")}


def test_other_bytes_under_the_key_are_replaced(spool, root):
    delivery = delivery_of(add_bundle(spool))
    DirectoryBucket(root).deliver(delivery)
    (root / delivery.keys.archive).write_bytes(b"evidenc3")
    (root / delivery.keys.manifest).write_bytes(b"{}")
    DirectoryBucket(root).deliver(delivery)
    assert (root / delivery.keys.archive).read_bytes() == b"evidence"
    assert (root / delivery.keys.manifest).read_bytes() == delivery.manifest


def test_wrong_archive_leaves_nothing_behind(spool, root):
    bundle = add_bundle(spool, b"evidence")
    bundle.archive.write_bytes(b"evidenc3")
    with pytest.raises(BundleFault):
        DirectoryBucket(root).deliver(delivery_of(bundle))
    assert files_below(root) == []


def test_leftover_of_a_killed_run_is_cleared(spool, root):
    delivery = delivery_of(add_bundle(spool))
    final = root / delivery.keys.archive
    final.parent.mkdir(parents=True)
    final.with_name(f".{final.name}.0badcafe.tmp").write_bytes(b"evid")
    DirectoryBucket(root).deliver(delivery)
    assert files_below(root) == sorted([delivery.keys.archive, delivery.keys.manifest])


@pytest.mark.parametrize("depth", range(4))
def test_links_below_the_root_are_not_followed(spool, root, tmp_path, depth):
    delivery = delivery_of(add_bundle(spool))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    link = root.joinpath(*delivery.keys.archive.split("/")[: depth + 1])
    link.parent.mkdir(parents=True)
    link.symlink_to(elsewhere)
    with pytest.raises(DestinationFault, match="director") as caught:
        DirectoryBucket(root).deliver(delivery)
    assert "link" in caught.value.remedy
    assert list(elsewhere.iterdir()) == []


def test_link_in_place_of_an_object_is_replaced_not_written_through(spool, root, tmp_path):
    delivery = delivery_of(add_bundle(spool))
    victim = tmp_path / "victim"
    victim.write_bytes(b"evidence")
    for key in (delivery.keys.archive, delivery.keys.manifest):
        (root / key).parent.mkdir(parents=True, exist_ok=True)
        (root / key).symlink_to(victim)
    DirectoryBucket(root).deliver(delivery)
    assert victim.read_bytes() == b"evidence"
    assert not (root / delivery.keys.archive).is_symlink()
    assert (root / delivery.keys.manifest).read_bytes() == delivery.manifest


def test_file_in_place_of_the_root_is_a_destination_fault(spool, root):
    root.write_text("not a directory")
    with pytest.raises(DestinationFault) as caught:
        DirectoryBucket(root).deliver(delivery_of(add_bundle(spool)))
    assert caught.value.remedy


def test_no_descriptor_leaks(spool, root):
    bundle = add_bundle(spool)
    bad = add_bundle(spool, b"good")
    bad.archive.write_bytes(b"evil")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        DirectoryBucket(root).deliver(delivery_of(bundle))
        with pytest.raises(BundleFault):
            DirectoryBucket(root).deliver(delivery_of(bad))
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_archive_goes_at_the_pace_and_what_is_there_goes_at_once(spool, root):
    taken = []

    class CountingPace(Pace):
        def take(self, amount):
            taken.append(amount)

    delivery = delivery_of(add_bundle(spool, b"x" * 3_000_000))
    destination = DirectoryBucket(root, CountingPace(1, StopSignal()))
    destination.deliver(delivery)
    assert sum(taken) == 3_000_000
    destination.deliver(delivery)
    assert sum(taken) == 3_000_000
