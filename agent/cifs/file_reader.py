"""Reading files of the kernel that may never answer: by a child each, with a deadline."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from agent.children import Streams, signal_group, start_child

MAX_BYTES = 4 << 20
# A killed child is gone at once; one that the kernel holds is not worth a longer wait.
REAP_SEC = 0.03

# Children that the kernel would not let die: no more than one for each file.
_held: dict[Path, subprocess.Popen[bytes]] = {}


@dataclass(frozen=True)
class FileText:
    """A file's text, in which bytes that are no UTF-8 are replaced.

    When the file could not be read whole, ``text`` is empty and ``fault`` says why.
    """

    text: str
    fault: str


def read_files(paths: Sequence[Path], timeout_sec: float) -> list[FileText]:
    """Read the files, at the same time, within ``timeout_sec`` and `REAP_SEC` for each.

    The children die with the calling *thread*. One that waits in uninterruptible sleep is left
    behind; until it is gone its file is not read again. Call this from one thread at a time.
    Raises OSError when no child can be started.
    """
    deadline = time.monotonic() + timeout_sec
    late = FileText("", f"did not answer within {timeout_sec:g} s")
    held = FileText("", "has not answered an earlier reader yet")
    with ExitStack() as stack:
        readings = [
            None if _is_held(path) else stack.enter_context(_reading(path)) for path in paths
        ]
        texts = [
            (reading.finished_by(deadline) or late) if reading else held for reading in readings
        ]
    return [
        FileText(text.text, f"{path} {text.fault}" if text.fault else "")
        for path, text in zip(paths, texts, strict=True)
    ]


@dataclass(frozen=True)
class _Reading:
    """A child that copies a file into ``memory``, which both processes have open."""

    child: subprocess.Popen[bytes]
    memory: IO[bytes]
    errors: IO[bytes]

    def finished_by(self, deadline: float) -> FileText | None:
        """What was read, when the child ended by then; the fault lacks the file's name."""
        try:
            code = self.child.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            return None
        if code:
            return FileText("", self._fault(code))
        self.memory.seek(0)
        return FileText(self.memory.read().decode("utf-8", "replace"), "")

    def _fault(self, code: int) -> str:
        self.errors.seek(0)
        reason = self.errors.read().decode("utf-8", "replace").strip().rpartition(": ")[2]
        if reason == "No such file or directory":
            return "is not there"
        return f"could not be read: {reason or f'the reader ended with {code}'}"


@contextmanager
def _reading(path: Path) -> Iterator[_Reading]:
    with _memory_file() as memory, _memory_file() as errors:
        child = start_child(["cat", "--", str(path)], Streams(memory, errors), MAX_BYTES)
        try:
            yield _Reading(child, memory, errors)
        finally:
            _end(child, path)


def _end(child: subprocess.Popen[bytes], path: Path) -> None:
    if child.poll() is not None:
        return
    signal_group(child, signal.SIGKILL)
    try:
        child.wait(REAP_SEC)
    except subprocess.TimeoutExpired:
        _held[path] = child


def _is_held(path: Path) -> bool:
    if path in _held and _held[path].poll() is not None:
        del _held[path]
    return path in _held


def _memory_file() -> IO[bytes]:
    return os.fdopen(os.memfd_create("aod-file-reader"), "rb")
