"""What must be there before a compiler is started: rights, bcc, tracefs, the tracepoints."""

from __future__ import annotations

import importlib
import os
import platform
import re
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

from bpf.load_fault import LoadFault
from bpf.probe_set import KernelFunction, OptionalProbe, Tracepoint

TRACEFS_PLACES = (Path("/sys/kernel/tracing"), Path("/sys/kernel/debug/tracing"))
CAP_SYS_MODULE, CAP_SYS_ADMIN, CAP_PERFMON, CAP_BPF = 16, 21, 38, 39


def require_architecture(machine: str | None = None) -> None:
    """Raise `LoadFault` (architecture) where the agent cannot read the kernel's ring safely."""
    found = machine or platform.machine()
    if found != "x86_64":
        raise LoadFault(
            "architecture",
            f"this release watches x86-64 kernels only, and this one is {found}",
            "remove the agent from this host",
        )


def holds_capability(number: int, status: Path = Path("/proc/self/status")) -> bool:
    """Whether this process has the capability (linux/capability.h) in effect."""
    found = re.search(r"^CapEff:\s*([0-9a-f]+)$", status.read_text(), re.M)
    return bool(found and int(found[1], 16) >> number & 1)


def require_rights(status: Path = Path("/proc/self/status")) -> None:
    """Raise `LoadFault` (not_root) unless this process may load and attach BPF programs."""
    may_trace = holds_capability(CAP_BPF, status) and holds_capability(CAP_PERFMON, status)
    if not (may_trace or holds_capability(CAP_SYS_ADMIN, status)):
        raise LoadFault(
            "not_root",
            "this process may not load BPF programs",
            "systemctl start aod-loader.socket, which loads for the service; without the service "
            "run as root, or with CAP_BPF, CAP_PERFMON and CAP_DAC_READ_SEARCH",
        )


def import_bcc() -> ModuleType:
    """The distribution's bcc; raises `LoadFault` (no_bcc, wrong_bcc)."""
    try:
        bcc = importlib.import_module("bcc")
    except (ImportError, OSError) as error:
        raise LoadFault(
            "no_bcc",
            f"bcc cannot be imported: {error}",
            "apt install python3-bpfcc or dnf install python3-bcc, and a virtual environment "
            "made from the system's python3 with --system-site-packages",
        ) from error
    if not hasattr(bcc, "BPF"):
        raise LoadFault(
            "wrong_bcc",
            f"{bcc.__file__} is another program of the same name",
            "pip uninstall bcc; then apt install python3-bpfcc or dnf install python3-bcc",
        )
    return bcc


def require_tracepoints(
    tracepoints: Iterable[Tracepoint], places: Iterable[Path] = TRACEFS_PLACES
) -> None:
    """Raise `LoadFault` (no_tracefs, no_cifs) unless the kernel has every one of them now."""
    events = _events_directory(places)
    if events is None:
        raise LoadFault(
            "no_tracefs",
            "the kernel's tracepoints cannot be seen: tracefs is not mounted (or not readable)",
            "mount -t tracefs nodev /sys/kernel/tracing; only root, or a process with "
            "CAP_DAC_READ_SEARCH, can see it",
        )
    absent = [t for t in tracepoints if not _is_there(events / t.category / t.event)]
    if absent:
        names = ", ".join(f"{t.category}:{t.event}" for t in absent)
        raise LoadFault(
            f"no_{absent[0].category}",
            f"the kernel has no tracepoint {names}",
            f"modprobe {absent[0].category} (a mount does it too)",
        )


def obstacle(probe: OptionalProbe) -> str:
    """Why ``probe`` cannot be attached; empty when nothing is known to be in its way."""
    if isinstance(probe.target, Tracepoint):
        return tracepoint_obstacle(probe.target, probe.fields)
    return function_obstacle(probe.target)


def tracepoint_obstacle(
    point: Tracepoint, fields: Iterable[str], places: Iterable[Path] = TRACEFS_PLACES
) -> str:
    """Why a source that reads ``fields`` of ``point`` would not compile, or cannot be attached."""
    events = _events_directory(places)
    name = f"{point.category}:{point.event}"
    if events is None or not _is_there(events / point.category / point.event):
        return f"the kernel has no tracepoint {name}"
    lines = (events / point.category / point.event / "format").read_text().splitlines()
    declared = [" " + line.partition("field:")[2].partition(";")[0] for line in lines]
    missing = [field for field in fields if not any(d.endswith(f" {field}") for d in declared)]
    return f"tracepoint {name} has no {', '.join(missing)}" if missing else ""


def function_obstacle(
    target: KernelFunction,
    symbols: Path = Path("/proc/kallsyms"),
    kprobes: Path = Path("/sys/bus/event_source/devices/kprobe"),
) -> str:
    """Why ``target`` cannot be probed."""
    if not kprobes.exists():
        return "this kernel has no kprobes"
    with symbols.open() as lines:
        if not any(line.split(maxsplit=3)[2] == target.name for line in lines):
            return f"the kernel has no function {target.name} that can be probed"
    return ""


def _events_directory(places: Iterable[Path]) -> Path | None:
    return next((place / "events" for place in places if _is_there(place / "events")), None)


def _is_there(directory: Path) -> bool:
    """Also false, unlike with `Path.is_dir`, when the directories above may not be entered."""
    return os.path.isdir(directory)  # noqa: PTH112
