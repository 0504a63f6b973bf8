"""What the shipper does to its spool, step by step, and its death at one of them."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

# Names of environment variables: the file that gets a line for each step, and "before 3".
LOG, DEATH = "AOD_STEPS_LOG", "AOD_STEPS_DEATH"


@dataclass(frozen=True)
class SpoolStep:
    """The ``number``-th time that a name in the spool appears, changes its meaning, or goes."""

    number: int
    label: str

    @property
    def kind(self) -> str:
        """The same for every bundle."""
        call, _, name = self.label.partition(" ")
        return f"{call} {name[name.index('.') :]}"


def read_steps(log: Path) -> list[SpoolStep]:
    """What was done in a run."""
    return [SpoolStep(number, line) for number, line in enumerate(log.read_text().splitlines(), 1)]


@contextmanager
def watched_steps() -> Iterator[None]:
    """Have the environment's wishes fulfilled; without any, nothing is different."""
    log = os.environ.get(LOG)
    if log is None:
        yield
        return
    with (
        Path(log).open("a", buffering=1) as lines,
        mock.patch.object(Path, "rename", _watched(Path.rename, lines)),
        mock.patch.object(Path, "unlink", _watched(Path.unlink, lines)),
    ):
        yield


def _watched(call: Callable[..., Any], lines: Any) -> Callable[..., Any]:
    def step(path: Path, *arguments: Any, **options: Any) -> Any:
        name = Path(arguments[0]).name if arguments else path.name
        lines.write(f"{call.__name__} {name}\n")
        number = len(Path(lines.name).read_text().splitlines())
        _die_if_wanted(f"before {number}")
        done = call(path, *arguments, **options)
        _die_if_wanted(f"after {number}")
        return done

    return step


def _die_if_wanted(moment: str) -> None:
    if os.environ.get(DEATH) == moment:
        os.kill(os.getpid(), signal.SIGKILL)
