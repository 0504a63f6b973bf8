"""Runs a function in a child process under strace, and reads what strace saw.

The child is forked, so that Python's start and its imports are neither paid for nor traced.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

# A leading "?": not every architecture has it.
CALLS = (
    "?open,?creat,openat,write,pwrite64,writev,fsync,fdatasync,?rename,?renameat,renameat2,?link,"
    "linkat,?unlink,unlinkat,?mkdir,mkdirat,?rmdir,truncate,ftruncate,?chmod,fchmod,fchmodat,"
    "sendfile,copy_file_range,splice"
)
WRITES = ("write", "pwrite64", "writev")
COPIES = ("sendfile", "copy_file_range", "splice")

_HEX = r"(?:\\x[0-9a-f]{2})*"
_TOKEN = re.compile(rf'(?:AT_FDCWD|\d+)<({_HEX})>(\(deleted\))?|"({_HEX})"(\.\.\.)?')
_LINE = re.compile(r"(?:(\d+) +)?(\w+)\((.*)\) += (-?\d+|\?)(.*)")
_DESCRIPTOR = re.compile(rf"<({_HEX})>")
_UNFINISHED = re.compile(r"(\d+) +(\w+)\((.*) <unfinished \.\.\.>")
_RESUMED = re.compile(r"(\d+) +<\.\.\. (\w+) resumed>(.*)")


@dataclass(frozen=True)
class Call:
    """One system call. ``ordinal`` counts its name from 1, in its thread; ``result`` is None when
    the thread died in it; ``injected``: strace had it fail; ``unnamed``: its file has no name
    (any more)."""

    thread: int
    name: str
    ordinal: int
    arguments: str
    paths: tuple[Path, ...]
    data: bytes
    result: int | None
    injected: bool
    unnamed: bool

    @property
    def succeeded(self) -> bool:
        """Whether it took effect."""
        return self.result is not None and self.result >= 0

    @property
    def hit(self) -> bool:
        """Whether a fault was injected here."""
        return self.injected or self.result is None

    def has_flag(self, *flags: str) -> bool:
        """Whether one of ``flags`` is among the arguments."""
        return not set(flags).isdisjoint(re.split(r"[|, ]+", self.arguments))

    def last_number(self) -> int:
        """The last argument, a number."""
        return int(self.arguments.rpartition(",")[2])


def run_traced(
    body: Callable[[], None], log: Path, inject: str = "", follow: bool = False, limit: int = 16
) -> int:
    """Run ``body`` in a child under strace; its wait status.

    ``inject`` is strace's expression for a fault. ``follow``: trace its children as well.
    ``limit``: how many bytes of what is written go into ``log``.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(writer)
        run_and_exit(body if os.read(reader, 1) else sys.exit)
    os.close(reader)
    options = ["-f"] if follow else []
    options += ["-e", f"inject={inject}"] if inject else []
    options += ["-e", f"trace={CALLS}", "-p", str(child)]
    command = ["strace", "-y", "-xx", "-s", str(limit), "-o", log, *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as strace:
        try:
            _wait_for_tracer(strace)
            os.write(writer, b"go")
        finally:
            os.close(writer)
            _, status = os.waitpid(child, 0)
    return status


def run_in_child(body: Callable[[], None]) -> int:
    """Run ``body`` in a child without strace; its wait status."""
    child = os.fork()
    if child == 0:
        run_and_exit(body)
    return os.waitpid(child, 0)[1]


def run_and_exit(body: Callable[[], None]) -> None:
    """End this process as ``body`` ends: 0, or 1 with a traceback on standard error."""
    status = 1
    try:
        body()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def _wait_for_tracer(strace: subprocess.Popen[str]) -> None:
    """Until it has stopped its victim; before that, calls would go by unseen."""
    assert strace.stderr is not None
    said = strace.stderr.readline()
    if not said.rstrip().endswith("attached"):
        raise RuntimeError(f"strace cannot trace its victim: {said}")


def read_calls(log: Path) -> Iterator[Call]:
    """The calls in the order of their ends."""
    counts: Counter[tuple[int, str]] = Counter()
    opened: dict[str, Path] = {}
    for line in _whole_lines(log):
        match = _LINE.fullmatch(line)
        if match is None:
            continue
        thread, name, arguments, result, rest = match.groups()
        key = (int(thread or 0), name)
        counts[key] += 1
        paths, data, unnamed = _operands(name, arguments)
        paths = tuple(_through_descriptor(path, opened) for path in paths)
        if descriptor := _DESCRIPTOR.match(rest):
            opened[result] = Path(os.fsdecode(_unhex(descriptor[1])))
        yield Call(
            thread=key[0],
            name=name,
            ordinal=counts[key],
            arguments=arguments,
            paths=paths,
            data=data,
            result=None if result == "?" else int(result),
            injected="(INJECTED)" in rest,
            unnamed=unnamed,
        )


def _whole_lines(log: Path) -> Iterator[str]:
    """Put together what strace split when threads' calls overlapped."""
    begun: dict[str, str] = {}
    for line in log.read_text().splitlines():
        if match := _UNFINISHED.fullmatch(line):
            thread, name, arguments = match.groups()
            begun[thread] = f"{thread} {name}({arguments}"
        elif match := _RESUMED.fullmatch(line):
            yield begun.pop(match[1]) + match[3]
        else:
            yield line


def _operands(name: str, arguments: str) -> tuple[tuple[Path, ...], bytes, bool]:
    """Paths (those relative to a descriptor made absolute), data, whether the file is unnamed."""
    paths: list[Path] = []
    texts: list[bytes] = []
    directory: Path | None = None
    unnamed = False
    for match in _TOKEN.finditer(arguments):
        if match[1] is not None:
            if directory is not None:
                paths.append(directory)
            directory = Path(os.fsdecode(_unhex(match[1])))
            unnamed = unnamed or match[2] is not None
        elif name in WRITES:
            texts.append(_unhex(match[3]))
        else:
            paths.append((directory or Path("/")) / os.fsdecode(_unhex(match[3])))
            directory = None
    if directory is not None:
        paths.append(directory)
    return tuple(paths), b"".join(texts), unnamed


def _through_descriptor(path: Path, opened: dict[str, Path]) -> Path:
    """What a path below ``/proc/self/fd`` means: what was ``opened`` last with this number."""
    if not path.is_relative_to("/proc/self/fd"):
        return path
    _, _, _, _, number, *names = path.parts
    return opened.get(number, path).joinpath(*names)


def _unhex(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))
