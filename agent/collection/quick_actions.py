"""The quick actions: what is collected from the system when an anomaly is found, as data."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from agent.cifs.mounts import cifs_mount_points

Argv = tuple[str, ...]

# The system's logs are wanted from a little before the trigger.
LEAD_SEC = 60
SYSLOG_LINES = 500
MAX_MOUNTS = 8


class Kind(Enum):
    """Whether an action runs a program for what it prints, or copies a file of the system."""

    CMD = "cmd"
    FILE = "file"


@dataclass(frozen=True)
class Roots:
    """Where the system keeps what is collected."""

    proc: Path = Path("/proc")
    log: Path = Path("/var/log")
    run: Path = Path("/run")


@dataclass(frozen=True)
class Scene:
    """What the actions' commands depend on; ``since_sec`` is seconds of the wall clock."""

    since_sec: int
    roots: Roots = field(default_factory=Roots)

    @classmethod
    def of_trigger(cls, wall_ns: int, roots: Roots) -> Scene:
        """The scene of an incident that was triggered at ``wall_ns``."""
        return cls(wall_ns // 1_000_000_000 - LEAD_SEC, roots)


@dataclass(frozen=True)
class QuickAction:
    """One thing to collect, into the file ``output``.

    ``commands`` gives the argument lists to run, all of them; none means that there is nothing
    to collect on this host. Files, too, are read by a child: /proc/fs/cifs can block on the locks
    of a sick session.
    """

    name: str
    output: str
    kind: Kind
    commands: Callable[[Scene], list[Argv]]
    why: str


@dataclass(frozen=True)
class ActionResult:
    """How one action went, for the manifest. ``file`` is None when nothing was written.

    ``status``: ok, not_there (this host has no such file or program), cut (at the size limit),
    failed (``exit`` and ``stderr_tail`` say how), timed_out, stopped (the agent's end came first)
    or not_run (it came before this action's turn); after cut, failed, timed_out and stopped the
    file holds what came until then.
    """

    name: str
    file: str | None
    status: str
    exit: int | None = None
    stderr_tail: str = ""
    duration_sec: float = 0.0
    bytes: int = 0


def _proc_file(*parts: str) -> Callable[[Scene], list[Argv]]:
    def commands(scene: Scene) -> list[Argv]:
        path = scene.roots.proc.joinpath(*parts)
        return [("cat", str(path))] if path.exists() else []

    return commands


def _of_host(scene: Scene, name: str) -> Path | None:
    """The file ``name`` of the first process, else of this one.

    A service sees its own copy of the mounts, where the unit's protection turns "rw" into "ro".
    """
    for process in ("1", "self"):
        path = scene.roots.proc / process / name
        try:
            path.open("rb").close()
        except OSError:
            continue
        return path
    return None


def _mounts(scene: Scene) -> list[Argv]:
    path = _of_host(scene, "mounts")
    return [("cat", str(path))] if path else []


def _has_journal(scene: Scene) -> bool:
    places = (scene.roots.log / "journal", scene.roots.run / "log" / "journal")
    return shutil.which("journalctl") is not None and any(
        next(place.glob("*/*.journal"), None) for place in places
    )


def _journal(scene: Scene, *options: str) -> Argv:
    since = f"--since=@{scene.since_sec}"
    return ("journalctl", *options, since, "--output=short-iso-precise", "--no-pager")


def _journalctl(scene: Scene) -> list[Argv]:
    return [_journal(scene)] if _has_journal(scene) else []


def _dmesg(scene: Scene) -> list[Argv]:
    if _has_journal(scene):
        return [_journal(scene, "--dmesg")]
    return [("dmesg", "--time-format=iso")]


def _syslogs(scene: Scene) -> list[Argv]:
    for path in (scene.roots.log / "syslog", scene.roots.log / "messages"):
        if path.exists():
            return [("tail", f"--lines={SYSLOG_LINES}", str(path))]
    return []


def _smbinfo(scene: Scene) -> list[Argv]:
    path = _of_host(scene, "mountinfo")
    mountinfo = path.read_text(errors="surrogateescape") if path else ""
    points = cifs_mount_points(mountinfo)[:MAX_MOUNTS]
    return [("smbinfo", "filebasicinfo", point) for point in points]


# In the order of volatility: what is gone soonest is started first.
QUICK_ACTIONS: tuple[QuickAction, ...] = (
    QuickAction(
        "debugdata",
        "debug_data.log",
        Kind.FILE,
        _proc_file("fs", "cifs", "DebugData"),
        "sessions, credits and requests in flight as the kernel sees them now",
    ),
    QuickAction(
        "stats",
        "cifsstats.log",
        Kind.FILE,
        _proc_file("fs", "cifs", "Stats"),
        "commands, failures and reconnects by share since the mount",
    ),
    QuickAction(
        "mounts",
        "mounts.log",
        Kind.FILE,
        _mounts,
        "servers, dialects and options of the mounts",
    ),
    QuickAction(
        "smbinfo",
        "smbinfo.log",
        Kind.CMD,
        _smbinfo,
        "whether the server answers one simple query for each mount",
    ),
    QuickAction(
        "dmesg",
        "dmesg.log",
        Kind.CMD,
        _dmesg,
        "what cifs.ko said: reconnects, timeouts, signature faults",
    ),
    QuickAction(
        "journalctl",
        "journalctl.log",
        Kind.CMD,
        _journalctl,
        "what else happened on the host at that time: network, services, memory",
    ),
    QuickAction(
        "syslogs",
        "syslogs.log",
        Kind.FILE,
        _syslogs,
        "the same for hosts that log to files",
    ),
)
