"""An archive that goes in parts, and goes on after a cut."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from botocore.exceptions import ClientError

from shipper.destinations.delivery import ArchiveReader, Delivery
from shipper.destinations.pace import Pace
from shipper.s3.answers import STORE_ERRORS, error_code, http_status, named
from shipper.s3.archive_part import ArchivePart
from shipper.s3.client import Answer, S3Client
from shipper.s3.conditional_writes import ConditionalWrites
from shipper.s3.refusals import is_known
from shipper.s3.stored_object import archive_etag, holds
from shipper.s3.upload_note import UploadNote, read_note, remove_note

# Larger archives go in parts, so that a lost connection costs one part's time. S3 takes 10,000
# parts of at least 5 MiB.
PART_SIZE = 32 << 20

# The upload that a note tells of is over, or the store lost some of it.
_UPLOAD_IS_GONE = {"NoSuchUpload", "InvalidPart", "InvalidPartOrder", "NoSuchKey"}
_SERVER_ERROR = 500
_READ_SIZE = 1 << 20


@dataclass(frozen=True)
class MultipartUpload:
    """The way of one archive into the store. One thread.

    ``store`` is the store in words; ``attributes`` are the arguments of CreateMultipartUpload
    that make the object what it is; ``interrupt`` is called before each part, and may raise.
    """

    client: S3Client
    store: str
    bucket: str
    attributes: Mapping[str, object]
    conditional: ConditionalWrites
    delivery: Delivery
    archive: ArchiveReader
    pace: Pace | None
    interrupt: Callable[[], None]

    def run(self) -> None:
        """Go on with the upload that the note tells of, else begin one.

        Whatever is raised leaves upload and note to the next attempt.
        """
        note = read_note(self.delivery.upload_note)
        if note is not None and not self._goes_on(note):
            abort(self.client, note)
            note = None
        if note is not None and self._is_finished(note):
            remove_note(self.delivery.upload_note)
            return
        self.archive.start_over()
        self._finish(self._begin())
        remove_note(self.delivery.upload_note)

    def _goes_on(self, note: UploadNote) -> bool:
        parts = -(-self.delivery.size // PART_SIZE)
        fits = note.is_of(self._blank_note()) and len(note.etags) <= parts
        return fits and self._still_has(note)

    def _still_has(self, note: UploadNote) -> bool:
        """Whether the archive begins with the bytes that were sent: else the parts would make an
        object that is not it. What is read here counts for the proof."""
        if not note.etags:
            return True
        sent = ArchivePart(self.archive, 0, min(len(note.etags) * PART_SIZE, self.delivery.size))
        while sent.read(_READ_SIZE):
            pass
        return self.archive.sha256_so_far == note.sent_sha256

    def _is_finished(self, note: UploadNote) -> bool:
        """Finish an older upload; false if it is gone, and not because it was finished before.

        So is one that the store refuses for reasons of its own: another key began it, or another
        kind of store. What is in the way of all uploads meets the new one too.
        """
        try:
            self._finish(note)
        except ClientError as error:
            if is_known(error) and error_code(error) not in _UPLOAD_IS_GONE:
                raise
            self._free(note)
            return self._is_stored()
        return True

    def _free(self, note: UploadNote) -> None:
        """Abort it; one that this key may not abort, or nobody, is the lifecycle rule's. A store
        that is not to be asked now is asked again: raises what it says."""
        try:
            self.client.abort_multipart_upload(**note.place())
        except ClientError as error:
            if http_status(error) >= _SERVER_ERROR:
                raise

    def _blank_note(self) -> UploadNote:
        key, sha256 = self.delivery.keys.archive, self.delivery.sha256
        attributes = json.dumps(self.attributes, sort_keys=True)
        return UploadNote(self.store, self.bucket, key, sha256, attributes, PART_SIZE, upload_id="")

    def _begin(self) -> UploadNote:
        answer = self.client.create_multipart_upload(
            Bucket=self.bucket, Key=self.delivery.keys.archive, **self.attributes
        )
        note = self._blank_note().with_upload(named(answer, "UploadId"))
        note.write(self.delivery.upload_note)
        return note

    def _finish(self, note: UploadNote) -> None:
        starts = range(0, self.delivery.size, PART_SIZE)
        for number, start in list(enumerate(starts, 1))[len(note.etags) :]:
            length = min(PART_SIZE, self.delivery.size - start)
            part = ArchivePart(self.archive, start, length, self.pace)
            self.interrupt()
            etag = self._send(note, number, part)
            note = note.with_part(etag, self.archive.sha256_so_far)
            note.write(self.delivery.upload_note)
        self._complete(note)

    def _send(self, note: UploadNote, number: int, part: ArchivePart) -> str:
        answer = self.client.upload_part(**note.place(), PartNumber=number, Body=part)
        return named(answer, "ETag")

    def _complete(self, note: UploadNote) -> None:
        """The archive was read to its end: it is the promised one."""
        parts = [{"PartNumber": number, "ETag": etag} for number, etag in enumerate(note.etags, 1)]

        def send(condition: Mapping[str, str]) -> Answer:
            return self.client.complete_multipart_upload(
                **note.place(), MultipartUpload={"Parts": parts}, **condition
            )

        def is_same() -> bool:
            stored = self._is_stored()
            if stored:
                abort(self.client, note)
            return stored

        self.conditional.write(self.client, send, is_same)

    def _is_stored(self) -> bool:
        return holds(
            self.client,
            self.bucket,
            self.delivery.keys.archive,
            self.delivery.size,
            lambda: archive_etag(self.archive, PART_SIZE),
        )


def abort(client: S3Client, note: UploadNote) -> None:
    """Free what an upload left in the store, if that can be; else the lifecycle rule does."""
    with contextlib.suppress(*STORE_ERRORS):
        client.abort_multipart_upload(**note.place())
