"""A file that an activation makes live, and whether the host has it already."""

from __future__ import annotations

import base64
import grp
import os
import pwd
import stat
from dataclasses import dataclass
from errno import ENOENT
from pathlib import Path
from typing import Any, Mapping

from ansible_collections.aod.fleet.plugins.module_utils.releases import is_complete

_DIFF_LIMIT = 128 * 1024


@dataclass(frozen=True)
class LiveFile:
    """``content`` is None where it is not known yet: in check mode, before the release is there.

    ``wanted`` is false where this release has no such file: then none is to be live.
    ``reload``: a unit takes it by a reload. ``secret``: its content is shown to nobody.
    """

    dest: Path
    content: bytes | None
    owner: str
    group: str
    mode: int
    reload: bool
    secret: bool
    validate: list[str]
    wanted: bool

    def content_differs(self) -> bool:
        """Whether the host's file is another one, or none, or one too many."""
        if not self.wanted:
            return os.path.lexists(self.dest)
        try:
            return self.dest.is_symlink() or self.dest.read_bytes() != self.content
        except FileNotFoundError:
            return True

    def differs(self) -> bool:
        """The same for content, owner, group and mode."""
        if self.content_differs() or not self.wanted:
            return self.content_differs()
        found = self.dest.stat()
        try:
            wanted = self._ids()
        except LookupError:
            return True
        return (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) != (*wanted, self.mode)

    def install(self) -> None:
        """Replace the file as a whole, durably. Raises OSError, or LookupError for a stranger."""
        if not self.wanted:
            remove(self.dest)
            return
        uid, gid = self._ids()
        replace_file(self.dest, self.content or b"", uid, gid, self.mode)

    def diff(self) -> dict[str, str]:
        """For ``--diff``."""
        before = self.dest.read_bytes() if self.dest.is_file() else b""
        header = {"before_header": str(self.dest), "after_header": str(self.dest)}
        if self.secret:
            return {**header, "before": "", "after": "(secret)\n"}
        if not self.wanted:
            return {**header, "before": _shown(before), "after": ""}
        after = b"(comes with the release)\n" if self.content is None else self.content
        return {**header, "before": _shown(before), "after": _shown(after)}

    def _ids(self) -> tuple[int, int]:
        try:
            return pwd.getpwnam(self.owner).pw_uid, grp.getgrnam(self.group).gr_gid
        except KeyError as error:
            raise LookupError(f"{self.dest}: {error.args[0]}") from error


def live_file(given: Mapping[str, Any], release: Path, check_mode: bool) -> LiveFile:
    """From the module's arguments. Raises OSError when there is no such source."""
    content: bytes | None = None
    wanted = True
    if given["content"] is not None:
        content = given["content"].encode()
    elif given["secret_base64"] is not None:
        content = base64.b64decode(given["secret_base64"])
    elif (release / given["src"]).exists():
        content = (release / given["src"]).read_bytes()
    elif given["optional"]:
        wanted = not is_complete(release)
    elif not check_mode:
        raise FileNotFoundError(ENOENT, "no such file", str(release / given["src"]))
    return LiveFile(
        dest=Path(given["dest"]),
        content=content,
        owner=given["owner"],
        group=given["group"],
        mode=int(given["mode"], 8),
        reload=given["reload"],
        secret=given["secret"] or given["secret_base64"] is not None,
        validate=given["validate"],
        wanted=wanted,
    )


def replace_file(path: Path, content: bytes, uid: int, gid: int, mode: int) -> None:
    """Atomic and durable: whoever reads, whenever, finds the old file or the new one."""
    fresh = _fresh_name(path)
    discard(fresh)
    try:
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            os.fchown(descriptor, uid, gid)
            os.fchmod(descriptor, mode)
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        fresh.replace(path)
    except OSError:
        discard(fresh)
        raise
    sync_directory(path.parent)


def replace_link(path: Path, target: str) -> None:
    """Point the link elsewhere, by one rename."""
    fresh = _fresh_name(path)
    discard(fresh)
    fresh.symlink_to(target)
    fresh.replace(path)
    sync_directory(path.parent)


def remove(path: Path) -> bool:
    """The file or link, and what a replacement that was killed left beside it.

    Whether ``path`` was there.
    """
    discard(_fresh_name(path))
    if not os.path.lexists(path):
        return False
    path.unlink()
    sync_directory(path.parent)
    return True


def discard(path: Path) -> None:
    """Remove it, should it be there."""
    if os.path.lexists(path):
        path.unlink()


def sync_directory(path: Path) -> None:
    """Names made in it survive a loss of power."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _fresh_name(path: Path) -> Path:
    return path.with_name(f".{path.name}.aod-new")


def _shown(content: bytes) -> str:
    if len(content) > _DIFF_LIMIT or b"\0" in content:
        return f"({len(content)} bytes)\n"
    return content.decode(errors="replace")
