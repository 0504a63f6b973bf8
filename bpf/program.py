"""The compiled program: bcc's side of the work, without bcc's ways of cleaning up.

bcc switches off at exit what it has attached; here the links must outlive this process, so they
are made through its library and never entered into its lists.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType

from bpf.headers import KernelHeaders
from bpf.load_fault import LoadFault
from bpf.probe_set import KernelFunction, OptionalProbe, ProbeSet, Tracepoint

MAP_NAMES = (
    "events",
    "inflight",
    "settings",
    "histograms",
    "counters",
    "activity",
    "connections",
)
STRUCT_TABLES = {
    "smb_event": "event_layout",
    "smb_inflight": "inflight",
    "smb_settings": "settings",
    "smb_histogram": "histograms",
    "smb_counters": "counters",
    "smb_activity": "activity",
    "smb_connection": "connections",
}
NOISE_LIMIT = 4_000
LINE_LIMIT = 200


class Program:
    """A compiled probe set. File descriptors it returns belong to this process until it ends."""

    def __init__(
        self,
        bcc: ModuleType,
        probes: ProbeSet,
        headers: KernelHeaders,
        ring_pages: int,
        optional: Sequence[OptionalProbe],
    ) -> None:
        """Compile, with those of ``probes``'s optional ones; raises `LoadFault` (compile, maps)."""
        self._bcc = bcc
        self._bpf_library = bcc.libbcc.lib
        headers.select()
        flags = [
            f"-I{probes.include}",
            f"-DAOD_RING_PAGES={ring_pages}",
            *(flag for probe in optional for flag in probe.flags),
            *probes.flags,
            *headers.flags,
        ]
        try:
            self._bpf = bcc.BPF(
                text=_source([*probes.sources, *(probe.source for probe in optional)]), cflags=flags
            )
        except Exception as error:  # bcc raises nothing more precise
            raise _compile_fault(error, headers) from error

    def layout(self) -> dict[str, dict[str, int]]:
        """Size and member offsets of every struct, as the compiler laid them out."""
        return {name: self._struct_layout(table) for name, table in STRUCT_TABLES.items()}

    def maps(self) -> dict[str, int]:
        """File descriptors of the maps the agent reads."""
        return {name: int(self._bpf[name].map_fd) for name in MAP_NAMES}

    def attach(self, target: Tracepoint | KernelFunction) -> tuple[int, int]:
        """(program, link); raises `LoadFault` (verifier, attach)."""
        if isinstance(target, Tracepoint):
            return self._attach_tracepoint(target)
        return self._attach_kprobe(target)

    def _attach_tracepoint(self, point: Tracepoint) -> tuple[int, int]:
        program = self._load(point.function, self._bcc.BPF.TRACEPOINT)
        link = self._bpf_library.bpf_attach_tracepoint(
            program, point.category.encode(), point.event.encode()
        )
        return program, self._attached(link, f"tracepoint {point.category}:{point.event}")

    def _attach_kprobe(self, target: KernelFunction) -> tuple[int, int]:
        program = self._load(target.function, self._bcc.BPF.KPROBE)
        name = target.name.encode()
        link = self._bpf_library.bpf_attach_kprobe(program, 0, b"p_" + name, name, 0, 0)
        return program, self._attached(link, f"kernel function {target.name}")

    def _struct_layout(self, table: str) -> dict[str, int]:
        """bcc writes the compiler's paddings into a leaf's type as members of their own."""
        leaf = self._bpf[table].Leaf
        names = [member[0] for member in leaf._fields_]
        places = {name: getattr(leaf, name).offset for name in names if not name.startswith("__")}
        return {"": ctypes.sizeof(leaf), **places}

    def _load(self, function: str, program_type: int) -> int:
        try:
            return int(self._bpf.load_func(function, program_type).fd)
        except Exception as error:  # bcc raises nothing more precise
            raise LoadFault(
                "verifier",
                f"{error}\n{_noise()}".strip(),
                "check for kernel lockdown and a seccomp filter of the service; "
                "a message of the kernel's verifier is a bug to report with its kernel version",
            ) from error

    def _attached(self, link: int, target: str) -> int:
        if link < 0:
            reason = os.strerror(ctypes.get_errno())
            raise LoadFault(
                "attach",
                f"cannot attach to {target}: {reason}\n{_noise()}".strip(),
                "check kernel lockdown, kernel.perf_event_paranoid and the service's filters",
            )
        return link


def _source(parts: Iterable[Path]) -> str:
    """bcc rewrites only its main file, so the sources become one text."""
    return "\n".join(f'#line 1 "{part.name}"\n{part.read_text()}' for part in parts)


def _compile_fault(error: Exception, headers: KernelHeaders) -> LoadFault:
    noise = _noise()
    if "could not open bpf map" in noise:
        return LoadFault(
            "maps",
            f"the kernel refused a map: {noise}",
            "a kernel of 5.8 or later is needed (BPF ring buffer, mapped arrays), "
            "CAP_BPF, and before 5.11 LimitMEMLOCK=infinity",
        )
    return LoadFault(
        "compile",
        f"{error} with headers {headers.path}: {noise}",
        "install the headers of the running kernel, or name a tree in BCC_KERNEL_SOURCE "
        "(Environment= of aod-loader@.service)",
    )


def _noise() -> str:
    """The end of what the compiler and the verifier wrote, when stderr is a file.

    bcc may add the compiler's own command line, which is longer than all diagnostics.
    """
    stderr = Path("/proc/self/fd/2")
    if not stderr.is_file():
        return ""
    lines = stderr.read_text(errors="replace").splitlines()
    return "\n".join(line[:LINE_LIMIT] for line in lines)[-NOISE_LIMIT:]
