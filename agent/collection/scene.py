"""What the actions' commands depend on: the incident's time, its processes, the system's places."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np

from agent.cifs.mounts import CifsMount, parse_mounts
from agent.detection.anomaly import AnomalyAction

# The system's logs are wanted from a little before the incident; of one that lasts, what came
# since its last bundle.
LEAD_SEC = 60
LONGEST_WINDOW_SEC = 900
NS = 1_000_000_000

MAX_PROCESSES = 16
MAX_DESCRIPTORS = 1_024


@dataclass(frozen=True)
class Roots:
    """Where the system keeps what is collected."""

    proc: Path = Path("/proc")
    sys: Path = Path("/sys")
    etc: Path = Path("/etc")
    log: Path = Path("/var/log")
    run: Path = Path("/run")


@dataclass(frozen=True)
class Scene:
    """``since_sec`` is seconds of the wall clock; ``pids`` are the processes whose commands are
    the evidence, those with most first; ``threads`` those that wait for an answer."""

    since_sec: int
    roots: Roots = field(default_factory=Roots)
    pids: tuple[int, ...] = ()
    threads: frozenset[int] = frozenset()

    @classmethod
    def of_order(cls, order: AnomalyAction, roots: Roots) -> Scene:
        """The scene of an incident."""
        opened_ns = order.incident.opened_ns + order.evidence.wall_offset_ns
        began_ns = max(opened_ns, order.wall_ns - LONGEST_WINDOW_SEC * NS)
        waiting = order.evidence.inflight[order.evidence.inflight["start_ns"] != 0]
        threads = frozenset(waiting["thread_id"].tolist())
        return cls(began_ns // NS - LEAD_SEC, roots, processes_of(order), threads)

    def of_host(self, name: str) -> Path | None:
        """The file ``name`` of the first process, else of this one.

        A service sees its own copy of the mounts, where the unit's protection turns "rw" into
        "ro".
        """
        for process in ("1", "self"):
            path = self.roots.proc / process / name
            try:
                path.open("rb").close()
            except OSError:
                continue
            return path
        return None

    def mounts(self) -> tuple[CifsMount, ...]:
        """The SMB mounts of the host."""
        path = self.of_host("mountinfo")
        return parse_mounts(path.read_text(errors="surrogateescape") if path else "")

    def open_files(self, limit: int) -> list[str]:
        """Up to ``limit`` descriptors of the scene's processes that are open on SMB mounts, as
        /proc/<pid>/fd/<n>: whoever opens that gets the very file. A name could lead elsewhere by
        now, or in another mount namespace, where an unprivileged user put a link.

        Reads what /proc says of them: nothing here touches the mounts, which may not answer.
        """
        found: dict[str, str] = {}
        for pid in self.pids:
            for target, descriptor in _open_on_smb(self.roots.proc / str(pid)):
                found.setdefault(target, descriptor)
                if len(found) >= limit:
                    return list(found.values())
        return list(found.values())


def processes_of(order: AnomalyAction) -> tuple[int, ...]:
    """Whom the evidence is about: a process asked for, those that wait for an answer, and those
    with slow or failed commands since shortly before the incident."""
    evidence = order.evidence
    waiting = evidence.inflight[evidence.inflight["start_ns"] != 0]
    since_ns = max(0, order.incident.opened_ns - LEAD_SEC * NS)
    recent = evidence.events[evidence.events["cmd_end_time_ns"] >= since_ns]
    found = [] if order.target_pid is None else [order.target_pid]
    for pids in (waiting["pid"], recent["pid"]):
        numbers, counts = np.unique(pids, return_counts=True)
        found += [int(pid) for pid in numbers[np.argsort(-counts, kind="stable")] if pid]
    return tuple(dict.fromkeys(found))[:MAX_PROCESSES]


def _open_on_smb(process: Path) -> Iterator[tuple[str, str]]:
    """(name, path of the descriptor); none when the process has gone."""
    try:
        mounts = parse_mounts((process / "mountinfo").read_text(errors="surrogateescape"))
        descriptors = list(islice((process / "fd").iterdir(), MAX_DESCRIPTORS))
    except OSError:
        return
    points = tuple(f"{mount.mount_point.rstrip('/')}/" for mount in mounts)
    ids = {mount.mount_id for mount in mounts}
    for descriptor in descriptors:
        try:
            target = str(descriptor.readlink())
            # The mount, too: the user may have mounted something else over it.
            if target.startswith(points) and _mount_id(process / "fdinfo" / descriptor.name) in ids:
                yield target, str(descriptor)
        except OSError:  # closed meanwhile
            continue


def _mount_id(fdinfo: Path) -> int | None:
    found = re.search(r"^mnt_id:\s*([0-9]+)$", fdinfo.read_text(), re.MULTILINE)
    return int(found[1]) if found else None
