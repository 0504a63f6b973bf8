"""What the shipper does to its spool, step by step, and its death at one of them."""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO
from unittest import mock

# Names of environment variables: the file that gets a line for each step, and the moment to die at.
LOG, DEATH = "AOD_STEPS_LOG", "AOD_STEPS_DEATH"


@dataclass(frozen=True)
class SpoolStep:
    """The ``number``-th time that a name in the spool appears, changes its meaning, or goes."""

    number: int
    what: str

    @property
    def label(self) -> str:
        """The same in every run, whatever the order of steps is."""
        return f"{self.what} for the {self.number}. time"

    @property
    def kind(self) -> str:
        """The same for every bundle."""
        call, _, name = self.what.partition(" ")
        return f"{call} {name[name.index('.') :]}"


def read_steps(log: Path) -> list[SpoolStep]:
    """What was done in a run."""
    counts: Counter[str] = Counter()
    return [_count(counts, line) for line in log.read_text().splitlines()]


def moment(step: SpoolStep, done: bool) -> str:
    """To die at."""
    return f"{'after' if done else 'before'} {step.label}"


@contextmanager
def watched_steps() -> Iterator[None]:
    """Have the environment's wishes fulfilled; without any, nothing is different."""
    log = os.environ.get(LOG)
    if log is None:
        yield
        return
    with Path(log).open("a", buffering=1) as lines:
        watcher = _Watcher(lines, os.environ.get(DEATH, ""))
        with (
            mock.patch.object(Path, "rename", watcher.watched(Path.rename)),
            mock.patch.object(Path, "unlink", watcher.watched(Path.unlink)),
        ):
            yield


class _Watcher:
    def __init__(self, lines: TextIO, death: str) -> None:
        self._lines = lines
        self._death = death
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def watched(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def step(path: Path, *arguments: Any, **options: Any) -> Any:
            name = Path(arguments[0]).name if arguments else path.name
            this = self._note(f"{call.__name__} {name}")
            self._die_at(moment(this, done=False))
            try:
                return call(path, *arguments, **options)
            finally:
                self._die_at(moment(this, done=True))

        return step

    def _note(self, what: str) -> SpoolStep:
        with self._lock:
            self._lines.write(f"{what}\n")
            return _count(self._counts, what)

    def _die_at(self, now: str) -> None:
        if now == self._death:
            os.kill(os.getpid(), signal.SIGKILL)


def _count(counts: Counter[str], what: str) -> SpoolStep:
    counts[what] += 1
    return SpoolStep(counts[what], what)
