"""What a host had before an activation, kept on disk until the activation has come to its end.

Whatever ends the activation half-way, the next one finds the journal and puts everything back.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Iterable

from ansible_collections.aod.fleet.plugins.module_utils import units
from ansible_collections.aod.fleet.plugins.module_utils.commands import CommandError
from ansible_collections.aod.fleet.plugins.module_utils.live_file import (
    remove,
    replace_file,
    replace_link,
    sync_directory,
)

DIRECTORY = "transaction"
_FILE = "journal.json"
_MADE = ".made_directories"


@dataclass(frozen=True)
class Kept:
    """What was at ``path``: a file (``copy`` has its bytes), a link to ``target``, or nothing."""

    path: str
    copy: str | None = None
    target: str | None = None
    uid: int = 0
    gid: int = 0
    mode: int = 0


@dataclass(frozen=True)
class KeptUnit:
    """How a unit stood. ``reload``: the activation only reloads it, and putting back does, too."""

    name: str
    enabled: bool
    active: bool
    reload: bool


class Journal:
    """The journal in ``prefix``. `begin` before the first change; then `commit` or `put_back`."""

    def __init__(self, prefix: Path) -> None:
        self._prefix = prefix
        self._directory = prefix / DIRECTORY
        self._path = self._directory / _FILE

    @property
    def is_open(self) -> bool:
        """Whether an activation was left half-way."""
        return self._path.exists()

    def begin(self, paths: Iterable[Path], kept_units: Iterable[KeptUnit]) -> None:
        """Keep what is at ``paths``, durably. Raises OSError."""
        self.discard()
        self._directory.mkdir(mode=0o700)
        paths = list(paths)
        document = {
            "paths": [asdict(self._keep(number, path)) for number, path in enumerate(paths)],
            "directories": [str(path) for path in _missing_directories(paths)],
            "units": [asdict(unit) for unit in kept_units],
        }
        replace_file(self._path, json.dumps(document, indent=1).encode(), 0, 0, 0o600)
        sync_directory(self._directory.parent)

    def recover(self) -> bool:
        """Put back what was left half-way; whether anything was. Raises as `put_back`."""
        found = self.is_open
        if found:
            self.put_back()
        self.discard()
        return found

    def commit(self) -> None:
        """What was is past; which directories were made is noted for the removal."""
        made = json.loads(self._path.read_text())["directories"]
        known = [str(path) for path in made_directories(self._prefix)]
        if new := [path for path in made if path not in known]:
            text = "".join(f"{path}\n" for path in [*known, *new])
            replace_file(self._prefix / _MADE, text.encode(), 0, 0, 0o644)
        self._close()

    def _close(self) -> None:
        self._path.unlink()
        sync_directory(self._directory)
        self.discard()

    def discard(self) -> None:
        """Remove the copies of an activation that had not begun, or had come to its end."""
        if self._directory.exists():
            shutil.rmtree(self._directory)

    def put_back(self) -> list[str]:
        """Files, links and units as they were. What units did not come back is in the answer.

        Raises OSError and `CommandError`; the journal then stays for the next activation.
        """
        document = json.loads(self._path.read_text())
        kept_units = [KeptUnit(**one) for one in document["units"]]
        for unit in kept_units:
            if not unit.active:
                units.retire(unit.name)
        for one in reversed(document["paths"]):
            self._restore(Kept(**one))
        for directory in reversed(document["directories"]):
            _remove_if_empty(Path(directory))
        units.reload_manager()
        failures = [_unit_put_back(unit) for unit in kept_units]
        self._close()
        return [failure for failure in failures if failure]

    def _keep(self, number: int, path: Path) -> Kept:
        try:
            found = path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return Kept(str(path))
        if stat.S_ISLNK(found.st_mode):
            return Kept(str(path), target=os.readlink(path))
        mode = stat.S_IMODE(found.st_mode)
        replace_file(self._directory / str(number), path.read_bytes(), 0, 0, 0o600)
        return Kept(str(path), str(number), None, found.st_uid, found.st_gid, mode)

    def _restore(self, kept: Kept) -> None:
        path = Path(kept.path)
        if kept.copy is not None:
            content = (self._directory / kept.copy).read_bytes()
            replace_file(path, content, kept.uid, kept.gid, kept.mode)
        elif kept.target is not None:
            replace_link(path, kept.target)
        elif path.parent.is_dir():
            units.retire_unit_of(path)
            remove(path)


def made_directories(prefix: Path) -> list[Path]:
    """Those that activations in ``prefix`` had to make, a parent before its child."""
    noted = prefix / _MADE
    return [Path(line) for line in noted.read_text().splitlines()] if noted.exists() else []


def _unit_put_back(unit: KeptUnit) -> str:
    """Why the unit is not as it was; empty when it is."""
    try:
        if unit.enabled:
            units.enable(unit.name)
        elif unit.active:
            units.disable(unit.name)
        if unit.active:
            (units.reload if unit.reload else units.restart)(unit.name)
    except CommandError as error:
        return str(error)
    return ""


def _missing_directories(paths: Iterable[Path]) -> list[Path]:
    """Those that have to be made, a parent before its child."""
    missing: dict[Path, None] = {}
    for path in paths:
        for parent in reversed(path.parents):
            if not parent.exists():
                missing[parent] = None
    return list(missing)


def _remove_if_empty(directory: Path) -> None:
    try:
        directory.rmdir()
    except OSError:  # not made, or somebody else's by now
        return
