"""The authorized_keys line that lets one host's key into its own folder and nowhere else."""

from __future__ import annotations

import base64
import binascii
import re
import struct
from dataclasses import fields
from pathlib import Path

from shipper.destinations.object_key import safe_name
from shipper.relay.limits import Limits

PROGRAM = Path("/opt/aod/current/bin/aod-relay")

_MAX_KEY_FILE = 16_384
_KEY_TYPES = (
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "ssh-rsa",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
)
# Neither quotes nor blanks nor what a shell or rsync's configuration would read as its own.
_PLAIN_PATH = re.compile(r"(/[A-Za-z0-9._-]+)+")


class UsageError(Exception):
    """What was asked for is not safe, or makes no sense; the message says what to do."""


def check_host(host: str) -> str:
    """``host``, which is to be the name of a folder and a part of object keys."""
    if safe_name(host) != host:
        raise UsageError(
            f"host name {host!a} cannot be used: letters, digits and `._-`, at most 128, "
            "beginning and ending with a letter or a digit; such as "
            f"--host {safe_name(host)}"
        )
    return host


def check_path(path: Path, what: str) -> Path:
    """``path``, absolute and so plain that it needs no quotes anywhere."""
    if not _PLAIN_PATH.fullmatch(str(path)) or ".." in path.parts:
        raise UsageError(
            f"{what} {str(path)!a} cannot be used: an absolute path of letters, digits and "
            "`._-` alone, such as /var/lib/aod/inbox"
        )
    return path


def authorized_line(key: str, host: str, inbox: Path, program: Path, limits: Limits) -> str:
    """The line for ``key`` (type and base64). Raises UsageError."""
    command = [
        str(check_path(program, "program")),
        *("receive", "--inbox", str(check_path(inbox, "inbox")), "--host", check_host(host)),
    ]
    for limit in fields(limits):
        value = getattr(limits, limit.name)
        if value != limit.default:
            command += [f"--{limit.name.replace('_', '-')}", str(value)]
    return f'restrict,command="{" ".join(command)}" {key} {host}'


def read_public_key(path: Path) -> str:
    """Type and base64 of the one public key in ``path``; raises UsageError and OSError."""
    with path.open("rb") as file:
        return parse_public_key(file.read(_MAX_KEY_FILE + 1), str(path))


def parse_public_key(content: bytes, path: str) -> str:
    """The same of a file's content; ``path`` names it in messages. Raises UsageError."""
    if b"PRIVATE KEY" in content:
        raise UsageError(f"{path} is a private key: it stays on its host; give the .pub file")
    try:
        text = content.decode("ascii")
    except UnicodeDecodeError:
        raise UsageError(f"{path} is no public key of ssh: it has bytes beyond ASCII") from None
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if len(lines) != 1 or len(content) > _MAX_KEY_FILE:
        raise UsageError(
            f"{path} holds {len(lines)} keys: give a file with the one key of this host"
        )
    kind, _, rest = lines[0].partition(" ")
    if kind not in _KEY_TYPES:
        raise UsageError(
            f"{path} does not begin with a key's type ({', '.join(_KEY_TYPES[:2])}, ...): options "
            "before the key are not taken over; remove them"
        )
    blob = rest.split(" ", 1)[0]
    if not _is_blob(kind, blob):
        raise UsageError(f"{path} is damaged: what follows {kind} is no such key")
    return f"{kind} {blob}"


def _is_blob(kind: str, text: str) -> bool:
    """Whether ``text`` is base64 of a key that says itself that it is of ``kind``."""
    try:
        blob = base64.b64decode(text, validate=True)
        (length,) = struct.unpack_from(">I", blob)
    except (binascii.Error, ValueError, struct.error):
        return False
    return blob[4 : 4 + length] == kind.encode() and len(blob) > 4 + length
