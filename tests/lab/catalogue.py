"""The classes of episodes: each a load, a fault or none, and what the seed decides."""

from __future__ import annotations

import errno
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from tests.vm import faults
from tests.vm.faults import Fault
from tests.vm.smb_server import PUBLIC_SHARE, SMALL_SHARE, SMB_USER

Parameters = Mapping[str, int]

PUBLIC_PATH, SMALL_PATH = f"/srv/{PUBLIC_SHARE}", f"/srv/{SMALL_SHARE}"

#: Of four seeds one is never looked at while rules are tuned.
SEEDS, HELD_OUT = 4, 3

_CONNECTION_LOST = (
    errno.EAGAIN,
    errno.EIO,
    errno.EHOSTDOWN,
    errno.ESHUTDOWN,
    errno.ECONNRESET,
    errno.ECONNABORTED,
    errno.ETIMEDOUT,
)


class UnknownClassError(ValueError):
    """No class of the catalogue matches."""


@dataclass(frozen=True)
class Workload:
    """Options of tests/lab/guest/workload.py; ``directory`` is relative to the mounts."""

    kind: str
    threads: int = 3
    pace_sec: float = 0.3
    share: str = PUBLIC_SHARE


@dataclass(frozen=True)
class Affected:
    """What shows in a command that the fault has touched: it lasts ``slow_ms`` or more, or fails
    with one of ``errors`` (positive errno numbers)."""

    slow_ms: float = 1000.0
    errors: tuple[int, ...] = ()


@dataclass(frozen=True)
class EpisodeClass:
    """``draws`` are inclusive ranges of whole numbers; ``fault`` gets one number of each.

    ``expected`` are the anomaly types that would be right. An innocent class has no fault; its
    load runs for ``before_sec``.
    """

    workload: Workload | None
    fault: Callable[[Parameters], Fault] | None = None
    draws: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    expected: tuple[str, ...] = ()
    affected: Affected = Affected()
    before_sec: float = 8.0
    fault_sec: tuple[float, float] = (10.0, 18.0)
    after_sec: float = 5.0


@dataclass(frozen=True)
class Case:
    """One episode to be run: a class with what the seed has drawn."""

    name: str
    seed: int
    episode_class: EpisodeClass
    parameters: Parameters
    fault_sec: float

    @property
    def title(self) -> str:
        """``<class>-<seed>``"""
        return f"{self.name}-{self.seed}"

    @property
    def innocent(self) -> bool:
        """Whether nothing is wrong in it."""
        return self.episode_class.fault is None

    def fault(self) -> Fault | None:
        """The fault, with the numbers drawn."""
        make = self.episode_class.fault
        return make(self.parameters) if make else None


def draw(name: str, seed: int) -> Case:
    """The episode ``seed`` of class ``name``: the same numbers every time."""
    episode_class = CATALOGUE[name]
    chance = random.Random(f"{name}:{seed}")  # noqa: S311
    parameters = {key: chance.randint(*bounds) for key, bounds in episode_class.draws.items()}
    return Case(
        name, seed, episode_class, parameters, round(chance.uniform(*episode_class.fault_sec), 1)
    )


def matching(patterns: str) -> list[str]:
    """Names of classes that match any of the comma-separated ``patterns`` (``delay_*,idle``)."""
    wanted = [pattern.strip() for pattern in patterns.split(",")]
    found = [name for name in CATALOGUE if any(fnmatchcase(name, p) for p in wanted)]
    if not found:
        raise UnknownClassError(f"no class matches {patterns!r}; there are {', '.join(CATALOGUE)}")
    return found


def is_held_out(seed: int) -> bool:
    """Whether episodes of ``seed`` are kept away from tuning."""
    return seed % SEEDS == HELD_OUT


_FILES = Workload("files")
_SMALL_FILES = Workload("files", share=SMALL_SHARE)

CATALOGUE: dict[str, EpisodeClass] = {
    "delay_small": EpisodeClass(
        _FILES,
        lambda p: faults.delay(p["delay_ms"]),
        {"delay_ms": (250, 400)},
        ("latency",),
        Affected(slow_ms=200),
    ),
    "delay_large": EpisodeClass(
        _FILES,
        lambda p: faults.delay(p["delay_ms"]),
        {"delay_ms": (800, 2000)},
        ("latency", "stall"),
        Affected(slow_ms=600),
    ),
    "delay_jitter": EpisodeClass(
        _FILES,
        lambda p: faults.delay(p["delay_ms"], p["jitter_ms"]),
        {"delay_ms": (280, 340), "jitter_ms": (200, 260)},
        ("latency",),
        Affected(slow_ms=200),
    ),
    "packet_loss": EpisodeClass(
        _FILES,
        lambda p: faults.server_link("loss", f"{p['loss_percent']}%"),
        {"loss_percent": (20, 35)},
        ("latency", "stall"),
        Affected(slow_ms=180),
    ),
    "hang_resume": EpisodeClass(
        _FILES,
        lambda p: faults.server_stopped(),
        expected=("stall", "latency"),
        fault_sec=(12.0, 18.0),
    ),
    "server_restart": EpisodeClass(
        _FILES,
        lambda p: faults.server_killed(),
        expected=("reconnect", "error", "latency", "stall"),
        affected=Affected(errors=_CONNECTION_LOST),
        fault_sec=(3.0, 6.0),
    ),
    "connection_drop": EpisodeClass(
        _FILES,
        lambda p: faults.connection_dropped(),
        expected=("stall", "latency", "reconnect", "error"),
        affected=Affected(errors=_CONNECTION_LOST),
        # TCP tries again 6 and 12.6 s after the first loss; the next time would be at 25 s.
        fault_sec=(8.0, 12.0),
    ),
    "connection_reset": EpisodeClass(
        _FILES,
        lambda p: faults.connection_reset(),
        expected=("reconnect", "error", "latency", "stall"),
        affected=Affected(errors=_CONNECTION_LOST),
    ),
    "share_full": EpisodeClass(
        _SMALL_FILES,
        lambda p: faults.file_system_full(SMALL_PATH),
        expected=("error",),
        affected=Affected(errors=(errno.ENOSPC,)),
    ),
    "read_only": EpisodeClass(
        _SMALL_FILES,
        lambda p: faults.file_system_read_only(SMALL_PATH),
        expected=("error",),
        affected=Affected(errors=(errno.EROFS, errno.EACCES)),
    ),
    "permission_lost": EpisodeClass(
        Workload("opens"),
        lambda p: faults.permission_lost(f"{PUBLIC_PATH}/many", SMB_USER),
        expected=("error",),
        affected=Affected(errors=(errno.EACCES,)),
    ),
    "files_missing": EpisodeClass(
        Workload("opens", threads=6, pace_sec=0.25),
        lambda p: faults.files_vanished(f"{PUBLIC_PATH}/many", SMB_USER),
        expected=("error",),
        affected=Affected(errors=(errno.ENOENT,)),
    ),
    "cpu_starved": EpisodeClass(
        _FILES,
        lambda p: faults.server_starved(p["percent"]),
        {"percent": (4, 6)},
        ("latency", "stall"),
        Affected(slow_ms=200),
    ),
    "slow_metadata": EpisodeClass(
        Workload("metadata", threads=6, pace_sec=0.5),
        lambda p: faults.delay(p["delay_ms"]),
        {"delay_ms": (200, 350)},
        ("latency",),
        Affected(slow_ms=180),
    ),
    "huge_slow_write": EpisodeClass(
        Workload("chunks", threads=2, pace_sec=0.15),
        lambda p: faults.client_link("rate", f"{p['rate_kbit']}kbit"),
        {"rate_kbit": (500, 900)},
        ("latency", "stall"),
    ),
    "drift": EpisodeClass(
        # One thread: of several, Nagle's algorithm makes each wait for the other's delayed
        # acknowledgement, which doubles the latency.
        Workload("files", threads=1, pace_sec=0.05),
        lambda p: faults.delay(p["delay_ms"]),
        {"delay_ms": (60, 110)},
        ("drift",),
        Affected(slow_ms=55),
        before_sec=25.0,
        fault_sec=(25.0, 25.0),
    ),
    "bulk_copy": EpisodeClass(Workload("bulk", threads=2, pace_sec=0.1), before_sec=30.0),
    "metadata_storm": EpisodeClass(Workload("metadata", threads=6, pace_sec=0.4), before_sec=30.0),
    "idle": EpisodeClass(None, before_sec=30.0),
    "editor_like": EpisodeClass(Workload("editor", pace_sec=0.15), before_sec=30.0),
}
