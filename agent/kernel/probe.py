"""The loaded kernel program as the agent sees it: its maps as NumPy arrays, its life as one object.

The kernel keeps the probes attached exactly as long as this process holds their links, so they go
with `Probe.close` and with the death of the agent by whatever cause.
"""

from __future__ import annotations

import mmap
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.kernel.hand_over import HandOver, LoadStopped, ProbeFault, garbage
from agent.kernel.loader_process import run_loader
from agent.kernel.loader_service import ask_loader, offers_loading
from bpf import abi

__all__ = ["LoadStopped", "Probe", "ProbeFault", "load_probe"]

DESCRIPTION = ("kernel", "headers", "bcc", "compound", "reconnect", "missing")
MAPS = {
    "inflight": (abi.INFLIGHT, abi.INFLIGHT_SLOTS),
    "settings": (abi.SETTINGS, 1),
    "histograms": (abi.HISTOGRAM, abi.COMMANDS),
    "counters": (abi.COUNTERS, 1),
    "activity": (abi.ACTIVITY, abi.TICKS),
    "connections": (abi.CONNECTION, abi.CONNECTIONS),
}


class Probe:
    """An attached kernel program. The arrays are the kernel's own memory, not copies.

    ``settings`` and ``counters`` have one element, ``inflight`` one per slot, ``histograms`` is
    uint64 of shape (COMMANDS, BUCKETS), ``activity`` has one element per tick, ``connections`` one
    per slot. ``ring_consumer`` is the ring's writable first page, ``ring_producer`` the page after
    it and twice the ``ring_size`` bytes of data, read-only.
    ``description`` is for the manifest and the status.

    An array or mapping taken from here stays valid memory while someone holds it, after `close`
    too; it only does not change any more.
    """

    def __init__(self, hand_over: HandOver) -> None:
        """Take ``hand_over``'s descriptors over. Raises `ProbeFault` (layout, garbage)."""
        self._hand_over: HandOver | None = hand_over
        self.programs: dict[str, int] = {}
        try:
            self._map(hand_over)
        except (KeyError, IndexError, TypeError, ValueError, AttributeError, OSError) as error:
            self.close()
            raise garbage(repr(error)) from error
        except ProbeFault:
            self.close()
            raise

    def _map(self, hand_over: HandOver) -> None:
        message, descriptors = hand_over.message, hand_over.descriptors
        _check_layout(message)
        maps = message["maps"]
        self.settings = _mapped(maps, descriptors, "settings")
        self.inflight = _mapped(maps, descriptors, "inflight")
        self.counters = _mapped(maps, descriptors, "counters")
        self.activity = _mapped(maps, descriptors, "activity")
        self.connections = _mapped(maps, descriptors, "connections")
        self.histograms: NDArray[np.uint64] = _mapped(maps, descriptors, "histograms")["bucket"]
        self.ring_fd = descriptors[maps["events"]["fd"]]
        self.ring_size = int(maps["events"]["max_entries"])
        self.ring_consumer = mmap.mmap(self.ring_fd, mmap.PAGESIZE)
        self.ring_producer = mmap.mmap(
            self.ring_fd,
            mmap.PAGESIZE + 2 * self.ring_size,
            prot=mmap.PROT_READ,
            offset=mmap.PAGESIZE,
        )
        self.programs = {name: descriptors[i] for name, i in message["programs"].items()}
        self.description: dict[str, Any] = {key: message[key] for key in DESCRIPTION}

    def run_statistics(self) -> dict[str, dict[str, int]]:
        """``run_time_ns`` and ``run_cnt`` by program; zeros while kernel.bpf_stats_enabled is 0."""
        return {name: _run_statistics(fd) for name, fd in self.programs.items()}

    def close(self) -> None:
        """Detach the probes and let go of the maps; a second call does nothing.

        The mappings are not closed by force: a view that another thread still reads would then be
        a fault. They end with their last reader.
        """
        if self._hand_over is None:
            return
        self._hand_over.close()
        self._hand_over = None
        self.programs = {}
        for name in (*MAPS, "ring_consumer", "ring_producer"):
            self.__dict__.pop(name, None)


def load_probe(
    ring_pages: int = 256,
    timeout_sec: float = 120,
    command: Sequence[str] | None = None,
    stop_fd: int | None = None,
) -> Probe:
    """Load and attach the program; blocks until that is done.

    The loader's service does it where there is one, else a short-lived child. ``ring_pages`` is a
    power of two; ``command`` is a child to be used instead. Raises `ProbeFault`, and `LoadStopped`
    when ``stop_fd`` became readable meanwhile.
    """
    if ring_pages < 1 or ring_pages & (ring_pages - 1):
        raise ValueError(f"ring_pages must be a power of two, not {ring_pages}")
    if command is None and offers_loading():
        return Probe(ask_loader(ring_pages, timeout_sec, stop_fd))
    loader = command or (sys.executable, "-m", "bpf.loader")
    return Probe(run_loader([*loader, "--ring-pages", str(ring_pages)], timeout_sec, stop_fd))


def _check_layout(message: dict[str, Any]) -> None:
    try:
        abi.check_layout(message["layout"])
    except abi.AbiMismatchError as error:
        raise ProbeFault(
            "layout",
            f"the kernel program and the agent are of different releases: {error}",
            "install one release of aod-fleet for both",
        ) from error


def _mapped(
    maps: dict[str, dict[str, int]], descriptors: Sequence[int], name: str
) -> NDArray[np.void]:
    """A map's memory as an array of its records, writable and shared with the kernel."""
    dtype, entries = MAPS[name]
    facts = maps[name]
    if (facts["value_size"], facts["max_entries"]) != (dtype.itemsize, entries):
        raise garbage(f"map {name}: {facts}")
    size = -(-dtype.itemsize * entries // mmap.PAGESIZE) * mmap.PAGESIZE
    memory = mmap.mmap(descriptors[facts["fd"]], size)
    return np.frombuffer(memory, dtype, entries)


def _run_statistics(descriptor: int) -> dict[str, int]:
    wanted = {"run_time_ns": 0, "run_cnt": 0}
    for line in Path(f"/proc/self/fdinfo/{descriptor}").read_text().splitlines():
        name, _, value = line.partition(":")
        if name in wanted:
            wanted[name] = int(value)
    return wanted
