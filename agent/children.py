"""Children: how they are started so that they outlive nobody, and how they are ended."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import IO

# util-linux. Asking for the signal between fork and exec instead would forbid vfork: copying this
# process's page tables takes 40 times as long, and a collection starts two dozen children.
_DIE_WITH_PARENT = ("setpriv", "--pdeathsig", "KILL", "--")


@dataclass(frozen=True)
class Streams:
    """What a child reads and writes: files or descriptors; ``inherited`` ones keep their number."""

    output: IO[bytes] | int
    errors: IO[bytes] | int
    source: IO[bytes] | int = subprocess.DEVNULL
    inherited: tuple[int, ...] = ()


def start_child(argv: Sequence[str], streams: Streams, max_bytes: int) -> subprocess.Popen[bytes]:
    """Start ``argv``; no file that it writes may grow beyond ``max_bytes``.

    The child has the C locale, a session and process group of its own, and dies with the calling
    *thread* (where there is a setpriv program; else with the service). Raises OSError when the
    program cannot be started.
    """
    child = subprocess.Popen(
        [*_launcher(), _program(argv[0]), *argv[1:]],
        stdin=streams.source,
        stdout=streams.output,
        stderr=streams.errors,
        cwd="/",
        env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
        start_new_session=True,
        pass_fds=streams.inherited,
        # SIGXFSZ stays ignored as Python has it: at the size limit the child sees EFBIG,
        # instead of dumping core.
        restore_signals=False,
    )
    with suppress(ProcessLookupError):  # it has ended already
        resource.prlimit(child.pid, resource.RLIMIT_FSIZE, (max_bytes, max_bytes))
    return child


def signal_group(child: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Signal the child, which was not waited for yet, and what it started."""
    with suppress(ProcessLookupError, PermissionError):  # gone, or it took another user's rights
        os.killpg(child.pid, number)


@cache
def _launcher() -> tuple[str, ...]:
    """Nothing where setpriv is missing or too old (util-linux 2.33) to know of the signal."""
    try:
        subprocess.run([*_DIE_WITH_PARENT, "true"], check=True, capture_output=True, timeout=5)
    except (OSError, subprocess.SubprocessError):
        return ()
    return _DIE_WITH_PARENT


def _program(name: str) -> str:
    """Where the program is: the launcher's own fault would look like the program's."""
    found = shutil.which(name)
    if found is None:
        number = errno.EACCES if os.path.exists(name) else errno.ENOENT  # noqa: PTH110
        raise OSError(number, os.strerror(number), name)
    return found
