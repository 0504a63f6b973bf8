"""What is compiled and where it is attached, as data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

SOURCE_DIRECTORY = Path(__file__).parent
CORE = tuple(SOURCE_DIRECTORY / name for name in ("maps.c", "ring.c", "smb.c"))
#: What is missing without an optional probe, by its name.
LOSSES = {
    "compound": "is_compounded is always 0",
    "reconnect": "lost connections are not noticed",
}


@dataclass(frozen=True)
class Tracepoint:
    """A function of the program and the tracepoint that calls it."""

    category: str
    event: str
    function: str


@dataclass(frozen=True)
class KernelFunction:
    """A function of the program and the kernel's function that calls it at its start."""

    name: str
    function: str


@dataclass(frozen=True)
class OptionalProbe:
    """A source file of its own; the program does without it on a kernel that has not its target.

    ``name`` is one of `LOSSES`, and its key in the description. ``fields`` are what the source
    reads of a tracepoint: ends of the declarations in its format file. ``flags`` are for the
    compiler, only with this probe.
    """

    name: str
    source: Path
    target: Tracepoint | KernelFunction
    fields: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class ProbeSet:
    """C files, compiled in this order as one text, and the functions in them to attach.

    Those ``optional`` are tried and done without; every one of ``tracepoints`` is necessary.
    ``flags`` are further arguments for the compiler.
    """

    sources: tuple[Path, ...]
    tracepoints: tuple[Tracepoint, ...]
    optional: tuple[OptionalProbe, ...] = ()
    include: Path = SOURCE_DIRECTORY
    flags: tuple[str, ...] = ()


CIFS = ProbeSet(
    sources=(*CORE, SOURCE_DIRECTORY / "cifs_probes.c"),
    tracepoints=(
        Tracepoint("cifs", "smb3_cmd_enter", "on_smb3_cmd_enter"),
        Tracepoint("cifs", "smb3_cmd_done", "on_smb3_cmd_done"),
        Tracepoint("cifs", "smb3_cmd_err", "on_smb3_cmd_err"),
    ),
    optional=(
        OptionalProbe(
            name="compound",
            source=SOURCE_DIRECTORY / "compound_probe.c",
            target=KernelFunction("compound_send_recv", "on_compound_send_recv"),
            flags=("-DAOD_COMPOUND",),
        ),
        OptionalProbe(
            name="reconnect",
            source=SOURCE_DIRECTORY / "reconnect_probe.c",
            target=Tracepoint("cifs", "smb3_reconnect", "on_smb3_reconnect"),
            fields=("currmid", "conn_id", "__data_loc char[] hostname"),
        ),
    ),
)
