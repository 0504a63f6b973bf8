"""The one door for subprocesses: argument lists only, bounded in time and size, reaped."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeAlias

from agent.children import signal_group, start_child
from agent.storage.durable_file import create_exclusive

STDERR_TAIL = 4096
# A killed child is gone at once; one that the kernel holds is not worth a longer wait.
REAP_SEC = 0.2

# Once it is done, commands are ended as if their time were over.
Halt: TypeAlias = "asyncio.Future[None]"


@dataclass(frozen=True)
class Limits:
    """Bounds of one command; ``grace_sec`` passes between SIGTERM and SIGKILL, and after it."""

    timeout_sec: float
    max_bytes: int
    grace_sec: float = 2.0


@dataclass(frozen=True)
class CommandResult:
    """How a command went. ``found`` is False when there is no such program (then no output file).

    ``exit`` is None after a death by ``signal``; both are None for a child that the kernel would
    not let die (it waits in uninterruptible sleep; it is reaped with a later command).
    """

    argv: tuple[str, ...]
    found: bool
    exit: int | None = None
    signal: int | None = None
    duration_sec: float = 0.0
    bytes: int = 0
    truncated: bool = False
    timed_out: bool = False
    stopped: bool = False
    stderr_tail: str = ""


async def run_command(
    argv: Sequence[str], output: Path, limits: Limits, halt: Halt | None = None
) -> CommandResult:
    """Run ``argv`` with its standard output in the new file ``output``.

    The child writes the file itself, so its output never passes through this process; the kernel
    ends it at ``max_bytes``. The child has no standard input, the C locale, a process group of its
    own, and dies with the calling *thread* (so call this from a thread that lives on). When this
    returns or raises, also by cancellation, the group was killed. Raises OSError when the file
    cannot be made or the program not be started.
    """
    started = time.monotonic()
    with (
        tempfile.TemporaryFile(dir=output.parent) as errors,
        os.fdopen(create_exclusive(output), "wb") as file,
    ):
        try:
            child = start_child(argv, file, errors, limits.max_bytes)
        except FileNotFoundError:
            output.unlink()
            return CommandResult(tuple(argv), found=False)
        in_time = await _supervise(child, limits, halt)
        stopped = not in_time and halt is not None and halt.done()
        size = os.fstat(file.fileno()).st_size
        code = child.returncode
        return CommandResult(
            tuple(argv),
            found=True,
            exit=code if code is not None and code >= 0 else None,
            signal=-code if code is not None and code < 0 else None,
            duration_sec=time.monotonic() - started,
            bytes=size,
            truncated=size >= limits.max_bytes,
            timed_out=not in_time and not stopped,
            stopped=stopped,
            stderr_tail=_tail(errors),
        )


async def _supervise(child: subprocess.Popen[bytes], limits: Limits, halt: Halt | None) -> bool:
    """Wait for the child, end it when its time is over or at a halt; whether it ended by itself."""
    try:
        with _pidfd(child) as pidfd:
            in_time = await _exits_within(pidfd, limits.timeout_sec, halt)
            if not in_time:
                signal_group(child, signal.SIGTERM)
                await _exits_within(pidfd, limits.grace_sec)
                signal_group(child, signal.SIGKILL)
                await _exits_within(pidfd, limits.grace_sec)
            return in_time
    finally:
        # For a cancellation, and for what the child left running. It is not reaped yet,
        # so its number cannot be somebody else's by now.
        signal_group(child, signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):
            child.wait(REAP_SEC)


async def _exits_within(pidfd: int, seconds: float, halt: Halt | None = None) -> bool:
    """Whether it does, and before ``halt``."""
    loop = asyncio.get_running_loop()
    exited: Halt = loop.create_future()

    def note_exit() -> None:
        loop.remove_reader(pidfd)
        exited.set_result(None)

    loop.add_reader(pidfd, note_exit)
    try:
        events = {exited} if halt is None else {exited, halt}
        await asyncio.wait(events, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        return exited.done()
    finally:
        loop.remove_reader(pidfd)


@contextmanager
def _pidfd(child: subprocess.Popen[bytes]) -> Iterator[int]:
    descriptor = os.pidfd_open(child.pid)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _tail(errors: IO[bytes]) -> str:
    size = errors.seek(0, os.SEEK_END)
    errors.seek(max(0, size - STDERR_TAIL))
    return errors.read(STDERR_TAIL).decode("utf-8", "replace").strip()
