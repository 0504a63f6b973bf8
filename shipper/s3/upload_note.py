"""What is kept on the disk of an upload in parts, so that a restart goes on with it."""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from agent.storage import durable_file


@dataclass(frozen=True)
class UploadNote:
    """One upload: ``upload_id`` in ``store`` (its description), and the ETags of its parts so far.

    ``attributes`` are those that the object was begun with, as JSON; ``part_size`` in bytes, every
    part but the last has it; ``sent_sha256`` is that of the parts' bytes together.
    """

    store: str
    bucket: str
    key: str
    sha256: str
    attributes: str
    part_size: int
    upload_id: str
    sent_sha256: str = ""
    etags: tuple[str, ...] = ()

    def is_of(self, other: UploadNote) -> bool:
        """Whether both tell of uploads of the same object to the same place."""
        return self._without_progress() == other._without_progress()

    def place(self) -> dict[str, str]:
        """The arguments by which a request names this upload."""
        return {"Bucket": self.bucket, "Key": self.key, "UploadId": self.upload_id}

    def with_upload(self, upload_id: str) -> UploadNote:
        """The note once the store has begun."""
        return replace(self, upload_id=upload_id)

    def with_part(self, etag: str, sent_sha256: str) -> UploadNote:
        """The note once the next part is in the store."""
        return replace(self, etags=(*self.etags, etag), sent_sha256=sent_sha256)

    def write(self, path: Path) -> None:
        """Replace the file. A disk that takes no note must not keep a bundle from leaving it."""
        with contextlib.suppress(OSError):
            durable_file.publish_bytes(path, json.dumps(asdict(self), indent=2).encode() + b"\n")

    def _without_progress(self) -> UploadNote:
        return replace(self, upload_id="", sent_sha256="", etags=())


def read_note(path: Path) -> UploadNote | None:
    """The note in the file ``path``; None when there is none, or no sense in it."""
    try:
        members = json.loads(durable_file.read_plain(path))
        note = UploadNote(**{**members, "etags": tuple(members["etags"])})
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None
    texts = [note.store, note.bucket, note.key, note.sha256, note.attributes, note.upload_id]
    texts += [note.sent_sha256, *note.etags]
    sound = all(isinstance(text, str) for text in texts) and isinstance(note.part_size, int)
    return note if sound and note.upload_id else None


def remove_note(path: Path) -> None:
    """Take the note away. One that stays tells of an upload that is over, which is found out."""
    with contextlib.suppress(OSError):
        path.unlink()
