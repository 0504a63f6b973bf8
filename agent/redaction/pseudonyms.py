"""Stable pseudonyms for names and addresses, and the map that stays on the host."""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agent.storage.durable_file import (
    create_exclusive,
    make_directory,
    publish_bytes,
    read_plain,
)

MAP_MODE = 0o600
# As StateDirectoryMode of the unit.
DIRECTORY_MODE = 0o750
# What the map remembers at most; a name beyond it still gets its pseudonym.
MOST_NAMES = 50_000
_KEY_BYTES = 32
_DIGITS = 10


class PseudonymMapError(Exception):
    """The map of pseudonyms is damaged."""

    def __init__(self, map_file: Path, damage: object) -> None:
        super().__init__(
            f"{map_file} is no map of pseudonyms ({damage}): no bundle is made. Put back a copy of "
            "it; or move it away, and all names get other pseudonyms from then on"
        )


class Pseudonyms:
    """Gives each name the same pseudonym in all bundles of a host.

    A pseudonym is a keyed hash; the random key and what was hashed lie in ``map_file``, mode 0600,
    which is made with its directory.
    ``known_users`` and ``known_hosts`` are mapped wherever they stand as words, other names where
    the text tells what they are. The service and a capture by hand may share the file. Raises
    `PseudonymMapError` when it is no map: a new key would silently break what was stable.
    """

    def __init__(
        self, map_file: Path, known_users: frozenset[str], known_hosts: frozenset[str]
    ) -> None:
        self.known_users = known_users
        self.known_hosts = known_hosts
        self._map_file = map_file
        self._new: dict[str, str] = {}
        self._given: dict[tuple[str, bytes], bytes] = {}
        make_directory(map_file.parent, DIRECTORY_MODE)
        with self._locked():
            if not map_file.exists():
                _write(map_file, os.urandom(_KEY_BYTES), {})
            self._key, self._kept = _read(map_file)

    def of(self, kind: str, name: bytes) -> bytes:
        """The pseudonym ``<kind>-<hex>`` of ``name``; upper and lower case are one."""
        known = self._given.get((kind, name))
        if known is None:
            if len(self._given) >= MOST_NAMES:
                self._given.clear()
            known = self._given[kind, name] = self._made(kind, name.lower())
        return known

    def _made(self, kind: str, folded: bytes) -> bytes:
        digest = hmac.new(self._key, kind.encode() + b"\0" + folded, hashlib.sha256).hexdigest()
        pseudonym = f"{kind}-{digest[:_DIGITS]}"
        if pseudonym not in self._kept and len(self._kept) + len(self._new) < MOST_NAMES:
            self._new[pseudonym] = folded.decode("utf-8", "surrogateescape")
        return pseudonym.encode()

    def save(self) -> None:
        """Make durable what was given out since. To be called before the bundle is published."""
        if not self._new:
            return
        with self._locked():
            key, kept = _read(self._map_file)
            self._kept = kept | self._new
            _write(self._map_file, key, self._kept)
        self._new = {}

    @contextmanager
    def _locked(self) -> Iterator[None]:
        lock = self._map_file.with_name(f".{self._map_file.name}.lock")
        try:
            descriptor = create_exclusive(lock, MAP_MODE)
        except FileExistsError:
            descriptor = os.open(lock, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _read(map_file: Path) -> tuple[bytes, dict[str, str]]:
    try:
        document = json.loads(read_plain(map_file))
        key, names = bytes.fromhex(document["key"]), dict(document["pseudonyms"])
    except (ValueError, KeyError, TypeError) as error:
        raise PseudonymMapError(map_file, error) from error
    if len(key) != _KEY_BYTES:
        raise PseudonymMapError(map_file, f"its key has not {_KEY_BYTES} bytes")
    return key, names


def _write(map_file: Path, key: bytes, names: dict[str, str]) -> None:
    document = {"key": key.hex(), "pseudonyms": dict(sorted(names.items()))}
    publish_bytes(map_file, json.dumps(document, indent=1).encode(), MAP_MODE)
