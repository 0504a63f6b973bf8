"""One door for the programs that a module of this collection runs on a host."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from typing import Sequence

# Above what systemd lets a unit take for its stop and its start.
TIMEOUT_SEC = 900
_OUTPUT_LIMIT = 4000


class CommandError(Exception):
    """A command failed; the message says which, how, and what it said."""


@dataclass(frozen=True)
class Done:
    """How a command ended; ``said`` is the end of both of its outputs."""

    exit_code: int
    stdout: str
    said: str


def run(argv: Sequence[str], timeout_sec: float = TIMEOUT_SEC) -> Done:
    """Run without stdin, in the C locale, and as a service would be: what a login sets for Python
    is none of its. Raises `CommandError` when it cannot be run."""
    surrounding = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    try:
        done = subprocess.run(
            list(argv),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_sec,
            check=False,
            env={**surrounding, "LC_ALL": "C", "SYSTEMD_PAGER": "", "SYSTEMD_COLORS": "0"},
        )
    except subprocess.TimeoutExpired as error:
        raise CommandError(f"{' '.join(argv)}: no end after {timeout_sec:g} s") from error
    except OSError as error:
        raise CommandError(f"{argv[0]}: {error.strerror}") from error
    said = "\n".join(part.strip() for part in (done.stdout, done.stderr) if part.strip())
    return Done(done.returncode, done.stdout, said[-_OUTPUT_LIMIT:])


def require(argv: Sequence[str], timeout_sec: float = TIMEOUT_SEC) -> Done:
    """The same; a command that fails raises `CommandError`, too."""
    done = run(argv, timeout_sec)
    if done.exit_code:
        raise CommandError(
            f"{' '.join(argv)} ended with {done.exit_code}: {done.said or 'no word'}"
        )
    return done
