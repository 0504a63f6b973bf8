"""The note of an upload in parts: what is read back, and what is no note."""

import json

import pytest

from shipper.s3.upload_note import UploadNote, read_note, remove_note

NOTE = UploadNote(
    store="s3://b at h",
    bucket="b",
    key="f/k.tar.zst",
    sha256="ab" * 32,
    attributes='{"ServerSideEncryption": "AES256"}',
    part_size=16 << 20,
    upload_id="id",
    sent_sha256="ef" * 32,
    etags=('"e1"', '"e2"'),
)


def test_note_is_read_back_as_it_was_written(tmp_path):
    path = tmp_path / "x.uploading"
    NOTE.write(path)
    assert read_note(path) == NOTE
    remove_note(path)
    assert read_note(path) is None
    remove_note(path)


@pytest.mark.parametrize(
    "change",
    [
        {"etags": 7},
        {"etags": None},
        {"etags": [1]},
        {"upload_id": ""},
        {"upload_id": None},
        {"part_size": "16"},
        {"key": ["k"]},
        {"attributes": {}},
        {"sent_sha256": None},
        {"more": 1},
    ],
)
def test_senseless_note_is_none(tmp_path, change):
    path = tmp_path / "x.uploading"
    NOTE.write(path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    assert read_note(path) is None


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000])
def test_file_that_is_no_note_is_none(tmp_path, content):
    path = tmp_path / "x.uploading"
    path.write_bytes(content)
    assert read_note(path) is None


def test_link_is_not_followed(tmp_path):
    NOTE.write(tmp_path / "real")
    (tmp_path / "x.uploading").symlink_to(tmp_path / "real")
    assert read_note(tmp_path / "x.uploading") is None


def test_disk_that_takes_no_note_stops_nothing(tmp_path):
    NOTE.write(tmp_path / "nowhere" / "x.uploading")


@pytest.mark.parametrize(
    "change",
    [
        {"store": "s3://b"},
        {"bucket": "c"},
        {"key": "k"},
        {"sha256": "cd" * 32},
        {"attributes": "{}"},
        {"part_size": 1},
    ],
)
def test_note_of_another_upload_is_told_apart(change):
    other = UploadNote(**{**NOTE.__dict__, **change})
    assert not NOTE.is_of(other)
    blank = {"upload_id": "", "sent_sha256": "", "etags": ()}
    assert NOTE.is_of(UploadNote(**{**NOTE.__dict__, **blank}))
