"""What is compiled and where it is attached, as data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

SOURCE_DIRECTORY = Path(__file__).parent


@dataclass(frozen=True)
class Tracepoint:
    """A function of the program and the tracepoint that calls it."""

    category: str
    event: str
    function: str


@dataclass(frozen=True)
class CompoundProbe:
    """An optional kprobe in a source file of its own; without it is_compounded is always 0."""

    source: Path
    kernel_function: str
    function: str


@dataclass(frozen=True)
class ProbeSet:
    """C files, compiled in this order as one text, and the functions in them to attach.

    ``compound`` is tried and done without; every one of ``tracepoints`` is necessary. ``flags``
    are further arguments for the compiler.
    """

    sources: tuple[Path, ...]
    tracepoints: tuple[Tracepoint, ...]
    compound: CompoundProbe | None = None
    include: Path = SOURCE_DIRECTORY
    flags: tuple[str, ...] = ()


CIFS = ProbeSet(
    sources=(SOURCE_DIRECTORY / "smb.c", SOURCE_DIRECTORY / "cifs_probes.c"),
    tracepoints=(
        Tracepoint("cifs", "smb3_cmd_enter", "on_smb3_cmd_enter"),
        Tracepoint("cifs", "smb3_cmd_done", "on_smb3_cmd_done"),
        Tracepoint("cifs", "smb3_cmd_err", "on_smb3_cmd_err"),
    ),
    compound=CompoundProbe(
        source=SOURCE_DIRECTORY / "compound_probe.c",
        kernel_function="compound_send_recv",
        function="on_compound_send_recv",
    ),
)
