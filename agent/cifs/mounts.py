"""SMB mounts in the text of /proc/<pid>/mountinfo."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

CIFS_TYPES = frozenset({"cifs", "smb3"})


@dataclass(frozen=True)
class CifsMount:
    r"""Where a share is mounted. ``unc`` is \\server\share, as DebugData writes it.

    The directory of the share that is mounted (prefixpath) is no part of it. "" when the mount's
    source names no share. ``port`` is 0 where the mount names none: 445. ``user`` is "" there.
    ``mount_id`` is that of /proc/<pid>/fdinfo.
    """

    unc: str
    mount_point: str
    port: int = 0
    user: str = ""
    mount_id: int = field(default=0, compare=False)


def parse_mounts(mountinfo: str) -> tuple[CifsMount, ...]:
    """SMB mounts in their order; lines of another form are passed over."""
    mounts = []
    for line in mountinfo.split("\n"):
        # Optional fields end with a lone dash: proc(5).
        before, _, after = line.partition(" - ")
        fields, (kind, source, options, *_) = before.split(" "), [*after.split(" "), "", ""]
        if kind in CIFS_TYPES and len(fields) > 4 and fields[0].isdecimal():
            unc, point = _unc(_unescaped(source)), _unescaped(fields[4])
            mounts.append(CifsMount(unc, point, _port(options), _user(options), int(fields[0])))
    return tuple(mounts)


def cifs_mount_points(mountinfo: str) -> list[str]:
    """Mount points of SMB file systems in the text of /proc/<pid>/mountinfo, each once."""
    return list(dict.fromkeys(mount.mount_point for mount in parse_mounts(mountinfo)))


def same_unc(one: str, other: str) -> bool:
    """Whether both name one share: servers do not tell upper from lower case."""
    return one.casefold() == other.casefold()


def _unc(source: str) -> str:
    words = source.replace("\\", "/").split("/", 4)
    if len(words) < 4 or words[0] or words[1] or not (words[2] and words[3]):
        return ""
    return rf"\\{words[2]}\{words[3]}"


def _port(options: str) -> int:
    stated = re.search(r"(?:^|,)port=([0-9]{1,5})(?:,|$)", options)
    return int(stated[1]) if stated else 0


def _user(options: str) -> str:
    stated = re.search(r"(?:^|,)username=([^,]+)", options)
    return _unescaped(stated[1]) if stated else ""


def _unescaped(field: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)
