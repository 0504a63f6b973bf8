"""Recorded traces: every command of a stretch of time, to replay without a kernel or a mount.

A trace is one zstd stream: a line of JSON about the recording, then blocks. A block is a line of
JSON (``events``: how many follow, ``lost``: how many were lost before them) and as many 64-byte
records of `bpf.abi.EVENT`. A recording that was cut off is good up to its last whole block.
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

from agent.storage import durable_file
from bpf import abi

FORMAT = "aod-trace"
VERSION = 1
COMPRESSION_LEVEL = 10
MOST_EVENTS = 50_000_000


class TraceError(Exception):
    """The file is not a trace this release can read."""


@dataclass(frozen=True)
class Trace:
    """``meta`` holds kernel, version and ``wall_offset_ns``; ``events`` are in order of arrival."""

    meta: dict[str, Any]
    events: NDArray[np.void]
    lost: int

    @property
    def duration_ns(self) -> int:
        """From the end of the first command to the end of the last."""
        times = self.events["cmd_end_time_ns"]
        return int(times.max()) - int(times.min()) if len(times) else 0


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
    events = [block for block, _ in blocks]
    joined = np.concatenate(events) if events else np.zeros(0, abi.EVENT)
    return Trace(meta, joined, sum(lost for _, lost in blocks))


def _header(stream: IO[bytes], path: Path) -> dict[str, Any]:
    try:
        header = json.loads(stream.readline(65_536))
    except ValueError:
        header = None
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise TraceError(f"{path}: not a trace; make one with 'aod-agent record'")
    if (header.get("version"), header.get("event_bytes")) != (VERSION, abi.EVENT.itemsize):
        raise TraceError(f"{path}: trace version {header.get('version')} is of another release")
    return header


def _blocks(stream: IO[bytes]) -> Iterator[tuple[NDArray[np.void], int]]:
    total = 0
    while line := stream.readline(4_096):
        try:
            block = json.loads(line)
            count, lost = int(block["events"]), int(block["lost"])
        except (ValueError, KeyError, TypeError):
            return
        total += count
        if count < 0 or total > MOST_EVENTS:
            return
        data = stream.read(count * abi.EVENT.itemsize)
        if len(data) < count * abi.EVENT.itemsize:
            return
        yield np.frombuffer(data, abi.EVENT), lost
