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

from agent.children import Streams, signal_group, start_child
from agent.collection.bounded_output import BoundedOutput, rest_of_line

STDERR_TAIL = 4096
# A killed child is gone at once; one that the kernel holds is not worth a longer wait.
REAP_SEC = 0.2

# As much as a pipe holds.
READ_BYTES = 1 << 16
# How often in a row one pipe is read before others have their turn; more than a pipe holds.
READS_IN_A_ROW = 16

# Once it is done, commands are ended as if their time were over.
Halt: TypeAlias = "asyncio.Future[None]"


@dataclass(frozen=True)
class Limits:
    """Bounds of one command; ``grace_sec`` passes between SIGTERM and SIGKILL, and after it.

    Of an output longer than ``max_bytes`` the beginning and the end are kept; without
    ``keep_tail`` the beginning.
    """

    timeout_sec: float
    max_bytes: int
    grace_sec: float = 2.0
    keep_tail: bool = True


@dataclass(frozen=True)
class CommandResult:
    """How a command went. ``found`` is False when there is no such program (then no output file).

    ``exit`` is None after a death by ``signal``; both are None for a child that the kernel would
    not let die (it waits in uninterruptible sleep; it is reaped with a later command). ``told``:
    it ran until it was told that its time was over, as it was meant to.
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
    told: bool = False
    stderr_tail: str = ""


async def run_command(
    argv: Sequence[str],
    output: Path,
    limits: Limits,
    halt: Halt | None = None,
    over: Halt | None = None,
) -> CommandResult:
    """Run ``argv`` with its standard output in the new file ``output``.

    The child has no standard input, the C locale, a process group of its own, and dies with the
    calling *thread* (so call this from a thread that lives on). When this returns or raises, also
    by cancellation, the group was killed. With ``over`` the command is one that goes on until it
    is told to end: it is, when ``over`` is done or ``timeout_sec`` has passed. Raises OSError when
    the file cannot be made or written, or the program not be started.
    """
    started = time.monotonic()
    with (
        tempfile.TemporaryFile(dir=output.parent) as errors,
        BoundedOutput(output, limits.max_bytes, limits.keep_tail) as file,
    ):
        try:
            child, pump = _start(argv, file, errors, limits)
        except FileNotFoundError:
            output.unlink()
            return CommandResult(tuple(argv), found=False)
        with pump:
            in_time = await _supervise(child, limits, [halt, over])
            pump.drain()
        size = file.finish()
        stopped = not in_time and halt is not None and halt.done()
        told = not in_time and not stopped and over is not None
        code = child.returncode
        return CommandResult(
            tuple(argv),
            found=True,
            exit=code if code is not None and code >= 0 else None,
            signal=-code if code is not None and code < 0 else None,
            duration_sec=time.monotonic() - started,
            bytes=size,
            truncated=file.cut,
            timed_out=not in_time and not stopped and not told,
            stopped=stopped,
            told=told,
            stderr_tail=_tail(errors),
        )


class _Pump:
    """Carries a child's output from its pipe into a file, while the event loop runs.

    A child whose output cannot be written, or would not be kept, finds its pipe closed.
    """

    def __init__(self, pipe: int, file: BoundedOutput) -> None:
        self._pipe = pipe
        self._file = file
        self._fault: OSError | None = None
        self._loop = asyncio.get_running_loop()
        os.set_blocking(pipe, False)

    def __enter__(self) -> None:
        self._loop.add_reader(self._pipe, self._carry)

    def __exit__(self, *_: object) -> None:
        self._close()

    def drain(self) -> None:
        """Take what a child that has ended left behind; raises OSError when any of its output
        could not be written."""
        if self._pipe >= 0:
            self._carry()
        if self._fault:
            raise self._fault

    def _carry(self) -> None:
        try:
            for _ in range(READS_IN_A_ROW):
                data = os.read(self._pipe, READ_BYTES)
                self._file.write(data)
                if not data or self._file.full:
                    self._close()
                    return
        except BlockingIOError:
            return
        except OSError as error:
            self._fault = error
            self._close()

    def _close(self) -> None:
        if self._pipe >= 0:
            self._loop.remove_reader(self._pipe)
            os.close(self._pipe)
            self._pipe = -1


def _start(
    argv: Sequence[str], file: BoundedOutput, errors: IO[bytes], limits: Limits
) -> tuple[subprocess.Popen[bytes], _Pump]:
    pipe, end_of_child = os.pipe()
    try:
        child = start_child(argv, Streams(end_of_child, errors), limits.max_bytes)
    except BaseException:
        os.close(pipe)
        raise
    finally:
        os.close(end_of_child)
    return child, _Pump(pipe, file)


async def _supervise(
    child: subprocess.Popen[bytes], limits: Limits, ends: Sequence[Halt | None]
) -> bool:
    """Wait for the child, end it when its time is over or one of ``ends`` is done; whether it
    ended by itself."""
    try:
        with _pidfd(child) as pidfd:
            in_time = await _exits_within(pidfd, limits.timeout_sec, ends)
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


async def _exits_within(pidfd: int, seconds: float, ends: Sequence[Halt | None] = ()) -> bool:
    """Whether it does, and before any of ``ends``."""
    loop = asyncio.get_running_loop()
    exited: Halt = loop.create_future()

    def note_exit() -> None:
        loop.remove_reader(pidfd)
        exited.set_result(None)

    loop.add_reader(pidfd, note_exit)
    try:
        events = {exited, *(end for end in ends if end is not None)}
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
    text = errors.read(STDERR_TAIL)
    if size > STDERR_TAIL:
        text = text[rest_of_line(text) :]
    return text.decode("utf-8", "replace").strip()
