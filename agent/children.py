"""Children: how they are started so that they outlive nobody, and how they are ended."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import IO

PR_SET_PDEATHSIG = 1

# Bound before any fork: the child may call it, but not look it up.
_prctl = ctypes.CDLL(None, use_errno=True).prctl


def start_child(
    argv: Sequence[str], output: IO[bytes] | int, errors: IO[bytes], max_bytes: int
) -> subprocess.Popen[bytes]:
    """Start ``argv`` with its standard output in ``output`` (a file or a descriptor); no file that
    it writes may grow beyond ``max_bytes``.

    The child has no standard input, the C locale, a session and process group of its own, and
    dies with the calling *thread*. Raises OSError when the program cannot be started.
    """
    return subprocess.Popen(
        list(argv),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=errors,
        cwd="/",
        env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
        start_new_session=True,
        # SIGXFSZ stays ignored as Python has it: at the size limit the child sees EFBIG,
        # instead of dumping core.
        restore_signals=False,
        preexec_fn=partial(_restrain, os.getpid(), max_bytes),  # noqa: PLW1509
    )


def signal_group(child: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Signal the child, which was not waited for yet, and what it started."""
    with suppress(ProcessLookupError, PermissionError):  # gone, or it took another user's rights
        os.killpg(child.pid, number)


def _restrain(parent: int, max_bytes: int) -> None:
    """In the child, before exec: die with the parent, write no more than ``max_bytes``."""
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # the parent died before the request was made
        os._exit(1)
    resource.setrlimit(resource.RLIMIT_FSIZE, (max_bytes, max_bytes))
