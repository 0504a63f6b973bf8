"""Keeps SMB commands flowing in the guest until SIGTERM: ``workload.py OPTIONS_JSON OUT``.

Options: ``kind`` (a key of KINDS), ``directory`` (on a mount), ``threads``, ``pace_sec`` (pause
after each step of a thread), ``seed``. What fails is counted by errno and tried again after the
same pause. OUT appears after the first step, and holds the counts as JSON at the end.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import random
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

Steps = Iterator[None]
Kind = Callable[[Path, Path, random.Random], Steps]

#: Files of `Workload.directory`/many, made by the lab.
MANY = 200
SMALL, CHUNK, BULK_CHUNKS = 16 << 10, 128 << 10, 16


def write(path: Path, data: bytes, flags: int = os.O_TRUNC) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | flags, 0o644)
    try:
        os.write(descriptor, data)
    finally:
        os.close(descriptor)


def some_file(root: Path, chance: random.Random) -> Path:
    return root / "many" / f"{chance.randrange(MANY):03}"


def files(root: Path, own: Path, chance: random.Random) -> Steps:
    """The life of a small file."""
    write(own / "work", chance.randbytes(SMALL))
    yield
    (own / "work").read_bytes()
    yield
    (own / "work").stat()
    yield
    (own / "work").rename(own / "moved")
    yield
    (own / "moved").unlink()
    yield


def metadata(root: Path, own: Path, chance: random.Random) -> Steps:
    """Attributes of many files, now and then a name that is not there."""
    for _ in range(10):
        some_file(root, chance).stat()
        yield
    (own / f"missing{chance.randrange(1000)}").exists()
    yield


def opens(root: Path, own: Path, chance: random.Random) -> Steps:
    """Many files are read, as by a build or an indexer."""
    descriptor = os.open(some_file(root, chance), os.O_RDONLY)
    try:
        os.read(descriptor, 4096)
    finally:
        os.close(descriptor)
    yield


def chunks(root: Path, own: Path, chance: random.Random) -> Steps:
    """One large file is written from its begin to its end, again and again."""
    descriptor = os.open(own / "large", os.O_WRONLY | os.O_CREAT, 0o644)
    try:
        for index in range(64):
            os.pwrite(descriptor, bytes(CHUNK), index * CHUNK)
            yield
    finally:
        os.close(descriptor)


def bulk(root: Path, own: Path, chance: random.Random) -> Steps:
    """Copies a file of 2 MB in large pieces."""
    data = chance.randbytes(CHUNK)
    with (own / "source").open("wb", buffering=0) as source:
        for _ in range(BULK_CHUNKS):
            source.write(data)
            yield
    source_file, copy = (own / "source").open("rb", buffering=0), (own / "copy").open("wb", 0)
    with source_file, copy:
        while data := source_file.read(CHUNK):
            copy.write(data)
            yield
    (own / "copy").unlink()
    yield


def editor(root: Path, own: Path, chance: random.Random) -> Steps:
    """Saves as an editor does: look for siblings, temporary file, fsync, rename, lock, read."""
    for sibling in (".editorconfig", ".document.swp", "document.lock"):
        (own / sibling).exists()
        yield
    with (own / ".document.tmp").open("wb", buffering=0) as temporary:
        temporary.write(chance.randbytes(SMALL))
        yield
        os.fsync(temporary.fileno())
        yield
    (own / ".document.tmp").replace(own / "document")
    yield
    with (own / "document").open("r+b", buffering=0) as document:
        fcntl.lockf(document, fcntl.LOCK_EX)
        yield
        document.read()
        yield
        fcntl.lockf(document, fcntl.LOCK_UN)
        yield


KINDS: dict[str, Kind] = {
    kind.__name__: kind for kind in (files, metadata, opens, chunks, bulk, editor)
}


class Workload:
    """The threads of one run. Nothing is shared but the counts."""

    def __init__(self, options: dict[str, object], out: Path) -> None:
        self._steps = KINDS[str(options["kind"])]
        self._root = Path(str(options["directory"]))
        self._threads = int(str(options["threads"]))
        self._pace_sec = float(str(options["pace_sec"]))
        self._seed = int(str(options["seed"]))
        self._out = out
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self.stop = threading.Event()

    def run(self) -> None:
        """Until `stop` is set and every thread has got its last answer."""
        threads = [threading.Thread(target=self._work, args=(i,)) for i in range(self._threads)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self._out.write_text(json.dumps(self._counts))

    def _work(self, index: int) -> None:
        chance = random.Random(self._seed * 1000 + index)  # noqa: S311
        own = self._root / f"worker{index}"
        own.mkdir(exist_ok=True)
        while not self.stop.is_set():
            try:
                for _ in self._steps(self._root, own, chance):
                    self._count("steps")
                    if self.stop.wait(self._pace_sec * chance.uniform(0.5, 1.5)):
                        return
            except OSError as error:
                self._count(errno.errorcode.get(error.errno or 0, "unknown"))
                self.stop.wait(self._pace_sec)

    def _count(self, what: str) -> None:
        with self._lock:
            if not self._counts:
                self._out.touch()
            self._counts[what] += 1


def main(options: str, out: str) -> None:
    workload = Workload(json.loads(options), Path(out))
    signal.signal(signal.SIGTERM, lambda *_: workload.stop.set())
    workload.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
