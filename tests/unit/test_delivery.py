import errno
import io
import json
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shipper.destinations.delivery import ArchiveReader, read_delivery
from shipper.faults import BundleFault, HostFault
from tests.shipper_support import add_bundle, delivery_of, new_spool


@pytest.fixture
def spool(tmp_path):
    return new_spool(tmp_path / "spool")


@pytest.mark.parametrize("amount", [1, 3, 8, 9, 100, -1])
def test_whole_archive_reads_back(spool, amount):
    with delivery_of(add_bundle(spool, b"evidence")).open_archive() as archive:
        content = b""
        while data := archive.read(amount):
            content += data
    assert content == b"evidence"


@pytest.mark.parametrize("amount", [1, 3, 8, 100, -1])
def test_changed_archive_is_noticed_at_the_end_at_the_latest(spool, amount):
    bundle = add_bundle(spool, b"evidence")
    bundle.archive.write_bytes(b"evidenc3")
    with (
        delivery_of(bundle).open_archive() as archive,
        pytest.raises(BundleFault, match="sha256"),
    ):
        while archive.read(amount):
            pass


@pytest.mark.parametrize("content", [b"", b"evidenc", b"evidence+"])
def test_archive_of_another_size_is_refused_unread(spool, content):
    bundle = add_bundle(spool, b"evidence")
    bundle.archive.write_bytes(content)
    with pytest.raises(BundleFault, match="manifest says 8"), delivery_of(bundle).open_archive():
        pass


def test_archive_that_grows_while_it_is_read_is_noticed(spool):
    bundle = add_bundle(spool, b"evidence")
    with delivery_of(bundle).open_archive() as archive:
        with bundle.archive.open("ab") as file:
            file.write(b"more")
        with pytest.raises(BundleFault, match="12 bytes"):
            archive.read()


def test_archive_may_be_read_again_and_is_proven_all_the_same(spool):
    with delivery_of(add_bundle(spool, b"evidence")).open_archive() as archive:
        assert archive.read(5) == b"evide"
        archive.seek(2)
        assert archive.read(5) == b"idenc"
        archive.seek(0)
        assert archive.read(8) == b"evidence"


def test_last_byte_of_a_wrong_archive_is_never_handed_out(spool):
    bundle = add_bundle(spool, b"evidence")
    bundle.archive.write_bytes(b"evidenc3")
    with delivery_of(bundle).open_archive() as archive:
        archive.read(5)
        archive.seek(3)
        with pytest.raises(BundleFault, match="sha256"):
            archive.read(5)


def test_nothing_may_be_skipped(spool):
    with delivery_of(add_bundle(spool, b"evidence")).open_archive() as archive:
        archive.read(3)
        with pytest.raises(ValueError, match="proof"):
            archive.seek(4)


def test_empty_archive_is_one(spool):
    with delivery_of(add_bundle(spool, b"")).open_archive() as archive:
        assert archive.read() == b""


@pytest.mark.parametrize("kind", [lambda path: path.symlink_to("/etc/passwd"), os.mkfifo, os.mkdir])
@pytest.mark.parametrize("part", ["archive", "done"])
def test_only_plain_files_are_opened(spool, part, kind):
    bundle = add_bundle(spool)
    path = getattr(bundle, part)
    path.unlink()
    kind(path)
    with pytest.raises(BundleFault, match="cannot be read"), delivery_of(bundle).open_archive():
        pass


@pytest.mark.parametrize("part", ["archive", "done"])
def test_host_that_cannot_read_now_says_nothing_about_the_bundle(spool, part):
    bundle = add_bundle(spool)
    delivery = delivery_of(bundle)
    getattr(bundle, part).unlink()
    with pytest.raises(HostFault, match="No such file"):
        (delivery if part == "archive" else delivery_of(bundle)).open_archive()


def test_disk_that_fails_in_the_middle_says_nothing_about_the_bundle(spool):
    class SickDisk(io.BytesIO):
        def read(self, amount=-1):
            raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(HostFault, match="Input/output error"):
        ArchiveReader(SickDisk(), delivery_of(add_bundle(spool))).read()


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"{}",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"id": 1, "archive": []}',
        b'{"archive": {"size": ' + b"9" * 10_000 + b"}}",
    ],
)
def test_bad_manifest_is_a_fault_of_this_bundle(spool, raw):
    bundle = add_bundle(spool)
    bundle.done.write_bytes(raw)
    with pytest.raises(BundleFault, match="bad manifest"):
        read_delivery(bundle, "")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("size", -1),
        ("size", True),
        ("size", 8.0),
        ("size", None),
        ("sha256", "AB" * 32),
        ("sha256", "ab" * 31),
        ("sha256", None),
        ("file", "../other.tar.zst"),
        ("file", None),
    ],
)
def test_each_field_of_the_archive_is_checked(spool, field, value):
    bundle = add_bundle(spool)
    manifest = bundle.manifest()
    manifest["archive"][field] = value
    bundle.done.write_text(json.dumps(manifest))
    with pytest.raises(BundleFault, match=rf"archive\.{field}"):
        read_delivery(bundle, "")


def test_manifest_of_another_bundle_is_refused(spool):
    bundle = add_bundle(spool)
    bundle.done.write_bytes(add_bundle(spool).done.read_bytes())
    with pytest.raises(BundleFault, match="its id"):
        read_delivery(bundle, "")


def test_missing_host_and_anomaly_do_not_hold_evidence_back(spool):
    delivery = read_delivery(add_bundle(spool, host=None, anomaly=["x"]), "")
    assert delivery.keys.archive.startswith("unknown/")
    assert "-unknown-" in delivery.keys.archive


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.fixed_dictionaries({}, optional={"host": _json, "anomaly": _json, "id": _json}))
def test_any_manifest_gives_a_key_or_a_bundle_fault(spool, changes):
    bundle = add_bundle(spool, **changes)
    try:
        key = read_delivery(bundle, "").keys.archive
    except BundleFault:
        assert "id" in changes
    else:
        assert len(key.split("/")) == 5
