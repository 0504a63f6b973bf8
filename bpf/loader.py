"""The loader: compiles, attaches, hands everything to its parent and leaves.

bcc brings a compiler of more than 100 MB, so it lives only as long as it is needed. Its parent
keeps the file descriptors; when the parent is gone, the kernel detaches the probes by itself.

    python -m bpf.loader --socket FD [--ring-pages N | --service]

FD is a SOCK_SEQPACKET connection to the agent. One JSON message goes over it, with the descriptors
that it refers to by number. On a fault the message is ``{"fault": {kind, message, remedy}}`` and
the exit code 3.

As a child of the agent it dies with its parent. As a service (``--service``) it first receives a
request, ``{"ring_pages": N}`` with a descriptor that becomes its stderr, and dies when the agent
closes the connection.
"""

from __future__ import annotations

import argparse
import ctypes
import fcntl
import json
import os
import platform
import select
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from bpf.headers import HeaderPlaces, KernelHeaders, find_headers
from bpf.load_fault import LoadFault
from bpf.preflight import (
    import_bcc,
    obstacle,
    require_architecture,
    require_rights,
    require_tracepoints,
)
from bpf.probe_set import CIFS, LOSSES, ProbeSet
from bpf.program import Program

EXIT_FAULT = 3
DEFAULT_RING_PAGES = 256
PR_SET_PDEATHSIG = 1
STDERR = 2
REQUEST_LIMIT = 1 << 10


def main(
    arguments: Sequence[str] | None = None,
    probes: ProbeSet = CIFS,
    places: HeaderPlaces | None = None,
) -> int:
    """Exit code: 0 after a hand-over, 3 after a fault was reported."""
    options = _parse(arguments)
    with socket.socket(fileno=options.socket) as agent:
        if options.service:
            ring_pages = _take_request(agent)
            _die_with_connection(agent)
        else:
            ring_pages = options.ring_pages
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        try:
            message, descriptors = load(probes, ring_pages, places)
        except LoadFault as fault:
            report = {"kind": fault.kind, "message": fault.message, "remedy": fault.remedy}
            _send(agent, {"fault": report}, [])
            return EXIT_FAULT
        _send(agent, message, descriptors)
    return 0


def load(
    probes: ProbeSet, ring_pages: int, places: HeaderPlaces | None = None
) -> tuple[dict[str, object], list[int]]:
    """Compile and attach ``probes``: the message for the agent and its file descriptors.

    bcc keeps the program open until this process ends. Raises `LoadFault`.
    """
    require_architecture()
    require_rights()
    bcc = import_bcc()
    require_tracepoints(probes.tracepoints)
    headers = find_headers(places)
    obstacles = dict.fromkeys(LOSSES, "not asked for")
    obstacles.update({probe.name: obstacle(probe) for probe in probes.optional})
    optional = [probe for probe in probes.optional if not obstacles[probe.name]]
    program = Program(bcc, probes, headers, ring_pages, optional)
    parts = DescriptorList()
    for name, descriptor in program.maps().items():
        parts.add_map(name, descriptor)
    for point in probes.tracepoints:
        parts.add_probe(point.function, *program.attach(point))
    for probe in optional:
        try:
            parts.add_probe(probe.target.function, *program.attach(probe.target))
        except LoadFault as fault:
            obstacles[probe.name] = fault.message
    return {
        "layout": program.layout(),
        **parts.message(),
        **_description(bcc, headers, obstacles),
    }, parts.descriptors


def _take_request(agent: socket.socket) -> int:
    """The ring's pages; from now on stderr is where the agent reads it."""
    data, descriptors, _, _ = socket.recv_fds(agent, REQUEST_LIMIT, 1)
    if not descriptors:
        sys.exit("the connection was closed without a request")
    os.dup2(descriptors[0], STDERR)
    os.close(descriptors[0])
    return int(json.loads(data)["ring_pages"])


def _die_with_connection(agent: socket.socket) -> None:
    """Have the kernel end this process when the agent closes its end, also inside the compiler."""
    fcntl.fcntl(agent, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(agent, fcntl.F_SETSIG, signal.SIGTERM)
    fcntl.fcntl(agent, fcntl.F_SETFL, os.O_ASYNC)
    poller = select.poll()
    poller.register(agent, 0)
    if poller.poll(0):
        sys.exit("the connection was closed before anything was loaded")


def _send(agent: socket.socket, message: dict[str, object], descriptors: Sequence[int]) -> None:
    # The agent may read and close at once: that is no reason to die any more.
    fcntl.fcntl(agent, fcntl.F_SETFL, 0)
    socket.send_fds(agent, [json.dumps(message).encode()], descriptors)


class DescriptorList:
    """File descriptors for the agent, and what each is, by its number in the list."""

    def __init__(self) -> None:
        self.descriptors: list[int] = []
        self._maps: dict[str, dict[str, int]] = {}
        self._programs: dict[str, int] = {}
        self._links: list[int] = []

    def add_map(self, name: str, descriptor: int) -> None:
        """A map with its size as the kernel has it."""
        facts = map_facts(descriptor)
        self._maps[name] = {
            "fd": self._number(descriptor),
            "value_size": facts["value_size"],
            "max_entries": facts["max_entries"],
        }

    def add_probe(self, function: str, program: int, link: int) -> None:
        """A loaded function and what keeps it attached."""
        self._programs[function] = self._number(program)
        self._links.append(self._number(link))

    def message(self) -> dict[str, object]:
        """Numbers by name."""
        return {"maps": self._maps, "programs": self._programs, "links": self._links}

    def _number(self, descriptor: int) -> int:
        self.descriptors.append(descriptor)
        return len(self.descriptors) - 1


def map_facts(descriptor: int) -> dict[str, int]:
    """The numbers the kernel shows about a BPF map."""
    lines = Path(f"/proc/self/fdinfo/{descriptor}").read_text().splitlines()
    pairs = (line.split(":", 1) for line in lines if ":" in line)
    return {name: int(value) for name, value in pairs if value.strip().isdecimal()}


def _description(
    bcc: ModuleType, headers: KernelHeaders, obstacles: dict[str, str]
) -> dict[str, object]:
    """``obstacles``: by optional probe, why it is not attached, or empty."""
    release = platform.release()
    missing = []
    if headers.kind == "installed":
        missing.append(f"headers of kernel {release}; compiled with those in {headers.path}")
    missing += [f"{LOSSES[name]}: {reason}" for name, reason in obstacles.items() if reason]
    return {
        "kernel": release,
        "bcc": str(bcc.__version__),
        "headers": {"kind": headers.kind, "path": str(headers.path)},
        **{name: {"attached": not why, "reason": why} for name, why in obstacles.items()},
        "missing": missing,
    }


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bpf.loader", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--socket", type=int, required=True, metavar="FD")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--ring-pages", type=int, default=DEFAULT_RING_PAGES, metavar="N")
    mode.add_argument("--service", action="store_true", help="FD is a connection to the service")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
