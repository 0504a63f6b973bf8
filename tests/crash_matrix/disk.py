"""A model of a file system that loses its power: what is on the platter, and what only in memory.

It is stricter than the file systems in use: data and names become durable by their own fsync only,
and what is not durable may be lost in any combination.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from tests.crash_matrix.operations import Operation
from tests.crash_matrix.tracing import COPIES

# Relative path to content; None for a directory. Parents come before what is in them.
Image = dict[str, "bytes | None"]


@dataclass(eq=False)
class File:
    """``offset`` is where the next write goes: files are written from their begin."""

    content: bytes = b""
    durable: bytes = b""
    offset: int = 0


@dataclass(eq=False)
class Directory:
    """``changes`` are those of ``entries`` since ``durable``: name and what it means then."""

    entries: dict[str, Node] = field(default_factory=dict)
    durable: dict[str, Node] = field(default_factory=dict)
    changes: list[dict[str, Node | None]] = field(default_factory=list)

    def change(self, **names: Node | None) -> None:
        """Set or (None) remove names, at once."""
        self.changes.append(names)
        _apply(self.entries, names)

    def sync(self) -> None:
        """Make the names durable."""
        self.durable = dict(self.entries)
        self.changes.clear()


Node = File | Directory


def _apply(entries: dict[str, Node], names: dict[str, Node | None]) -> None:
    for name, node in names.items():
        if node is None:
            entries.pop(name, None)
        else:
            entries[name] = node


class Disk:
    """Starts with what lies below ``root``, all of it durable; `apply` follows a victim."""

    def __init__(self, root: Path) -> None:
        self._top = _load(root)

    def apply(self, operation: Operation) -> None:
        """Have the operation take effect, in memory or on the platter."""
        kind, call = operation.kind, operation.call
        if not call.succeeded or call.unnamed or kind in ("open", "chmod"):
            return
        path = PurePath(operation.names[0])
        if kind in ("create", "mkdir"):
            if not call.has_flag("O_TMPFILE"):
                self._create(path, kind, truncate=call.has_flag("O_TRUNC"))
        elif kind == "write":
            self._write(path, operation)
        elif kind == "truncate":
            file = self._file(path)
            file.content = file.content[: call.last_number()].ljust(call.last_number(), b"\0")
        elif kind == "fsync":
            file = self._file(path)
            file.durable = file.content
        elif kind == "fsync directory":
            self._directory(path).sync()
        elif kind in ("unlink", "rmdir"):
            self._directory(path.parent).change(**{path.name: None})
        elif kind in ("rename", "link"):
            self._move(path, PurePath(operation.names[1]), keep=kind == "link")
        else:
            within = "copies within the kernel" if kind in COPIES else "is unknown"
            raise NotImplementedError(f"{operation}: {within}, the model cannot follow it")

    def images(self, seed: int) -> Iterator[tuple[str, Image]]:
        """What may be found after a loss of power at this moment, by what was lost."""
        yield "nothing", _image(self._top, _everything, lambda file: file.content)
        yield "data", _image(self._top, _everything, lambda file: file.durable)
        yield "data, sizes kept", _image(self._top, _everything, _holes)
        yield "names", _image(self._top, _durable, lambda file: file.content)
        yield "names and data", _image(self._top, _durable, lambda file: file.durable)
        chance = random.Random(seed)  # noqa: S311 - the same in every run
        for _ in range(3):
            yield "a part", _image(self._top, partial_names(chance), partial_data(chance))

    def _create(self, path: PurePath, kind: str, truncate: bool) -> None:
        parent = self._directory(path.parent)
        node = parent.entries.get(path.name)
        if node is None:
            parent.change(**{path.name: Directory() if kind == "mkdir" else File()})
        elif isinstance(node, File):
            node.offset = 0
            if truncate:
                node.content = b""

    def _write(self, path: PurePath, operation: Operation) -> None:
        file, call = self._file(path), operation.call
        offset = call.last_number() if call.name == "pwrite64" else file.offset
        data = call.data[: call.result]
        before = file.content[:offset].ljust(offset, b"\0")
        file.content = before + data + file.content[offset + len(data) :]
        if call.name != "pwrite64":
            file.offset = offset + len(data)

    def _move(self, old: PurePath, new: PurePath, keep: bool) -> None:
        source, target = self._directory(old.parent), self._directory(new.parent)
        node = source.entries[old.name]
        if source is target and not keep:
            source.change(**{old.name: None, new.name: node})
            return
        target.change(**{new.name: node})
        if not keep:
            source.change(**{old.name: None})

    def _node(self, path: PurePath) -> Node:
        node: Node = self._top
        for name in path.parts:
            if not isinstance(node, Directory):
                raise NotADirectoryError(path)
            node = node.entries[name]
        return node

    def _file(self, path: PurePath) -> File:
        node = self._node(path)
        assert isinstance(node, File)
        return node

    def _directory(self, path: PurePath) -> Directory:
        node = self._node(path)
        assert isinstance(node, Directory)
        return node


def load_image(root: Path) -> Image:
    """What lies below ``root``."""
    return _image(_load(root), _everything, lambda file: file.content)


def write_image(image: Image, root: Path) -> None:
    """Make the files of ``image`` in the empty directory ``root``."""
    for name, content in image.items():
        if content is None:
            (root / name).mkdir()
        else:
            (root / name).write_bytes(content)


def _load(path: Path) -> Directory:
    entries: dict[str, Node] = {}
    for child in sorted(path.iterdir()):
        if child.is_dir():
            entries[child.name] = _load(child)
        else:
            content = child.read_bytes()
            entries[child.name] = File(content, content)
    return Directory(entries, dict(entries))


Names = Callable[[Directory], dict[str, Node]]


def _image(top: Directory, names: Names, data: Callable[[File], bytes]) -> Image:
    image: Image = {}
    stack = [("", top)]
    while stack:
        prefix, directory = stack.pop()
        for name, node in sorted(names(directory).items()):
            path = f"{prefix}{name}"
            if isinstance(node, Directory):
                image[path] = None
                stack.append((f"{path}/", node))
            else:
                image[path] = data(node)
    return image


def _everything(directory: Directory) -> dict[str, Node]:
    return directory.entries


def _durable(directory: Directory) -> dict[str, Node]:
    return directory.durable


def _holes(file: File) -> bytes:
    """The size reached the platter, the data did not."""
    return file.durable[: len(file.content)].ljust(len(file.content), b"\0")


def partial_names(chance: random.Random) -> Names:
    """Of the changes since the last fsync, any may be lost."""

    def names(directory: Directory) -> dict[str, Node]:
        entries = dict(directory.durable)
        for change in directory.changes:
            if chance.random() < 0.5:
                _apply(entries, change)
        return entries

    return names


def partial_data(chance: random.Random) -> Callable[[File], bytes]:
    """Of what was written since the last fsync, nothing, a part or all may be lost."""

    def data(file: File) -> bytes:
        if file.content == file.durable:
            return file.content
        cut = file.content[: chance.randrange(len(file.content) + 1)]
        return chance.choice([file.content, file.durable, _holes(file), cut])

    return data
