"""Recorded traces: every command of a stretch of time, to replay without a kernel or a mount.

A trace is one zstd stream: a line of JSON about the recording, then blocks. A block is a line of
JSON and what it announces: ``events`` (how many follow, ``lost``: how many were lost before them)
64-byte records of `bpf.abi.EVENT`; or, for a look, ``inflight`` records of `bpf.abi.INFLIGHT`, with
the look's ``time_ns`` and the texts of the kernel's SMB client in the line itself. A recording that
was cut off is good up to its last whole block. Version 1 had no looks.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import zstandard
from numpy.typing import NDArray

from agent.cifs.state import CifsTexts
from agent.storage import durable_file
from bpf import abi

FORMAT = "aod-trace"
VERSION = 2
READABLE_VERSIONS = (1, 2)
COMPRESSION_LEVEL = 10
MOST_EVENTS = 50_000_000
MOST_LOOKS = 1_000_000
LINE_LIMIT = 16 << 20


class TraceError(Exception):
    """The file is not a trace this release can read."""


@dataclass(frozen=True)
class Look:
    """The table of commands under way at ``time_ns``, and what the kernel said of its servers."""

    time_ns: int
    inflight: NDArray[np.void]
    texts: CifsTexts


@dataclass(frozen=True)
class Trace:
    """``meta`` holds kernel, version and ``wall_offset_ns``; ``events`` are in order of arrival,
    ``looks`` in order of time. ``name`` is the file's."""

    meta: dict[str, Any]
    events: NDArray[np.void]
    lost: int
    looks: tuple[Look, ...] = ()
    name: str = ""

    @property
    def duration_ns(self) -> int:
        """From the end of the first command to the end of the last."""
        times = self.events["cmd_end_time_ns"]
        return int(times.max()) - int(times.min()) if len(times) else 0


@dataclass(frozen=True)
class _Events:
    events: NDArray[np.void]
    lost: int


class TraceWriter:
    """Writes blocks as they come; see `create_trace`."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.events = 0

    def write(self, events: NDArray[np.void], lost: int = 0) -> None:
        """Append one block."""
        if len(events) or lost:
            self._stream.write(json.dumps({"events": len(events), "lost": lost}).encode() + b"\n")
            self._stream.write(events.tobytes())
            self.events += len(events)

    def write_look(self, look: Look) -> None:
        """Append a look."""
        line = {"inflight": len(look.inflight), "time_ns": look.time_ns, "texts": vars(look.texts)}
        self._stream.write(json.dumps(line).encode() + b"\n")
        self._stream.write(look.inflight.tobytes())


@contextmanager
def create_trace(path: Path, meta: dict[str, Any]) -> Iterator[TraceWriter]:
    """A writer for a new trace; the file appears under its name when the block ends well."""
    temporary = durable_file.temporary_beside(path)
    header = {"format": FORMAT, "version": VERSION, "event_bytes": abi.EVENT.itemsize, **meta}
    compressor = zstandard.ZstdCompressor(level=COMPRESSION_LEVEL, write_checksum=True)
    try:
        with (
            open(durable_file.create_exclusive(temporary), "wb") as file,  # noqa: PTH123
            compressor.stream_writer(file) as stream,
        ):
            stream.write(json.dumps(header, sort_keys=True).encode() + b"\n")
            yield TraceWriter(stream)
        durable_file.publish_file(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def read_trace(path: Path) -> Trace:
    """The whole trace in memory. Raises `TraceError` for another file, OSError as ``open``."""
    with path.open("rb") as file:
        stream = io.BufferedReader(zstandard.ZstdDecompressor().stream_reader(file))
        try:
            meta = _header(stream, path)
            blocks = list(_blocks(stream))
        except zstandard.ZstdError as error:
            raise TraceError(f"{path}: not a trace, or damaged: {error}") from error
    events = [block.events for block in blocks if isinstance(block, _Events)]
    joined = np.concatenate(events) if events else np.zeros(0, abi.EVENT)
    return Trace(
        meta,
        joined,
        sum(block.lost for block in blocks if isinstance(block, _Events)),
        tuple(block for block in blocks if isinstance(block, Look)),
        path.name,
    )


def _header(stream: IO[bytes], path: Path) -> dict[str, Any]:
    try:
        header = json.loads(stream.readline(65_536))
    except ValueError:
        header = None
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise TraceError(f"{path}: not a trace; make one with 'aod-agent record'")
    known = header.get("version") in READABLE_VERSIONS
    if not known or header.get("event_bytes") != abi.EVENT.itemsize:
        raise TraceError(f"{path}: trace version {header.get('version')} is of another release")
    return header


def _blocks(stream: IO[bytes]) -> Iterator[_Events | Look]:
    events = looks = 0
    while line := stream.readline(LINE_LIMIT):
        try:
            head = json.loads(line)
            block = _look(head, stream) if "inflight" in head else _events(head, stream)
        except (ValueError, KeyError, TypeError):
            return
        if isinstance(block, Look):
            looks += 1
        else:
            events += len(block.events)
        if events > MOST_EVENTS or looks > MOST_LOOKS:
            return
        yield block


def _events(head: dict[str, Any], stream: IO[bytes]) -> _Events:
    return _Events(_records(stream, abi.EVENT, int(head["events"])), int(head["lost"]))


def _look(head: dict[str, Any], stream: IO[bytes]) -> Look:
    inflight = _records(stream, abi.INFLIGHT, int(head["inflight"]))
    return Look(int(head["time_ns"]), inflight, CifsTexts(**head["texts"]))


def _records(stream: IO[bytes], dtype: np.dtype[np.void], count: int) -> NDArray[np.void]:
    """Raises ValueError when the stream ends before, or the count makes no sense."""
    if not 0 <= count <= MOST_EVENTS:
        raise ValueError(f"{count} records")
    data = stream.read(count * dtype.itemsize)
    if len(data) < count * dtype.itemsize:
        raise ValueError("cut off")
    return np.frombuffer(data, dtype)
