"""What a quick action is, and how it went."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from agent.collection.scene import Scene

Argv = tuple[str, ...]


class Kind(Enum):
    """Whether an action runs a program for what it prints, or copies files of the system."""

    CMD = "cmd"
    FILE = "file"


class Wave(Enum):
    """When an action starts: at once, for what is gone soon, or after those."""

    VOLATILE = 0
    LASTING = 1


class Span(Enum):
    """How long an action runs: until it is done, or for as long as the collection lasts."""

    MOMENT = "moment"
    COLLECTION = "collection"


@dataclass(frozen=True)
class Command:
    """An argument list to run. ``absent_exit`` is the exit status by which the program says that
    there is nothing of the kind on this host, or not all of it."""

    argv: Argv
    absent_exit: int | None = None


@dataclass(frozen=True)
class QuickAction:
    """One thing to collect, into the file ``output``.

    ``commands`` gives what to run, all of it; nothing means that there is nothing to collect on
    this host. Files, too, are read by a child: /proc/fs/cifs can block on the locks of a sick
    session. ``timeout_sec`` and ``max_mb`` replace the general limits. Without ``text`` the output
    is for programs: not looked through for secrets, never shortened in the middle. Not
    ``by_default``: collected only for rules that name it.
    """

    name: str
    output: str
    kind: Kind
    commands: Callable[[Scene], list[Command]]
    why: str
    wave: Wave = Wave.LASTING
    span: Span = Span.MOMENT
    timeout_sec: float | None = None
    max_mb: float | None = None
    text: bool = True
    by_default: bool = True


@dataclass(frozen=True)
class CommandReport:
    """How one of an action's commands went; fields as those of `ActionResult`."""

    argv: Argv
    status: str
    exit: int | None
    signal: int | None
    stderr_tail: str
    duration_sec: float


@dataclass(frozen=True)
class ActionResult:
    """How one action went, for the manifest. ``file`` is None when nothing was written.

    ``status``, the worst of its commands': ok, not_there (this host has no such file or program;
    only when none of its commands found anything), cut (fine, but for its size), failed (``exit``
    and ``stderr_tail`` say how), timed_out, stopped (the agent's end came first) or not_run (it
    came before this action's turn); after failed, timed_out and stopped the file holds what came
    until then. ``cut``: there was more than the size limit, and its middle is missing.
    """

    name: str
    file: str | None
    status: str
    exit: int | None = None
    stderr_tail: str = ""
    duration_sec: float = 0.0
    bytes: int = 0
    cut: bool = False
    commands: tuple[CommandReport, ...] = ()
