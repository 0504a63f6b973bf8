"""Which server, share and mount point a command belongs to, and whether it still waits."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from agent.cifs.debug_data import Server, Session, parse_debug_data
from agent.cifs.file_reader import read_files
from agent.cifs.mounts import CifsMount, parse_mounts, same_unc

# MID_* in cifsglob.h: allocated (being sent, or waiting for room in the socket) and submitted.
# With any other the answer is there, or the connection went and the command is sent anew with
# another mid. An interim answer (STATUS_PENDING) leaves a command submitted.
MID_REQUEST_ALLOCATED, MID_REQUEST_SUBMITTED = 1, 2
WAITING = frozenset({MID_REQUEST_ALLOCATED, MID_REQUEST_SUBMITTED})


@dataclass(frozen=True)
class CifsState:
    """What the kernel listed at one moment.

    Session ids are given by the servers, so two servers may give the same one: what is then not
    certain is said to be unknown. Session id 0 and tree id 0 are nobody's. ``fault`` says why the
    kernel's list could not be had; then there are no servers.
    """

    servers: tuple[Server, ...]
    mounts: tuple[CifsMount, ...]
    fault: str = ""

    def server_of(self, session_id: int) -> str:
        """Host name of the session's server, else its address, "" when unknown."""
        return _only(_name(server) for server, _ in self._sessions(session_id))

    def share_of(self, session_id: int, tree_id: int) -> str:
        r"""\\server\share of the tree; of tree 0, the session's only one besides IPC$; else ""."""
        shares = [share for _, session in self._sessions(session_id) for share in session.shares]
        exact = {share.unc for share in shares if share.tree_id == tree_id}
        if tree_id:
            return _only(exact)
        return _only(share.unc for share in shares if not share.is_ipc)

    def mount_points(self, unc: str) -> tuple[str, ...]:
        """Where the share is mounted, each place once."""
        found = (mount.mount_point for mount in self.mounts if same_unc(mount.unc, unc))
        return tuple(dict.fromkeys(found)) if unc else ()

    def is_pending(self, command: int, mid: int) -> bool:
        """Whether the kernel waits for the server's answer to that command, on any connection.

        A command that waits for a lost connection to come back is not on the list: it is sent
        anew. Linux 5.15 does not list those of a session's extra channels.
        """
        return (command, mid) in self._waiting

    def server_names(self) -> tuple[str, ...]:
        """Names of the servers as `server_of` gives them, each once."""
        return tuple(dict.fromkeys(filter(None, map(_name, self.servers))))

    def knows(self, session_id: int) -> bool:
        """Whether the kernel lists the session."""
        return bool(self._sessions(session_id))

    def sole_session(self) -> bool:
        """Whether there is one session only, so that every command must be of it."""
        return sum(len(server.sessions) for server in self.servers) == 1

    def _sessions(self, session_id: int) -> list[tuple[Server, Session]]:
        return [
            (server, session)
            for server in self.servers
            for session in server.sessions
            if session.session_id == session_id != 0
        ]

    @cached_property
    def _waiting(self) -> frozenset[tuple[int, int]]:
        return frozenset(
            (pending.command, pending.mid)
            for server in self.servers
            for pending in server.pending
            if pending.state in WAITING
        )


NO_STATE = CifsState((), ())


def parse_state(debug_data: str, mountinfo: str) -> CifsState:
    """The state that the texts of DebugData and mountinfo tell. Never raises."""
    return CifsState(parse_debug_data(debug_data), parse_mounts(mountinfo))


@dataclass(frozen=True)
class CifsTexts:
    """The texts for `parse_state`. ``fault`` says in words which of them is empty, and why."""

    debug_data: str
    mountinfo: str
    fault: str


def state_of(texts: CifsTexts) -> CifsState:
    """The state that ``texts`` tell, and why it is not known where they do not. Never raises."""
    state = parse_state(texts.debug_data, texts.mountinfo)
    return state if texts.debug_data else replace(state, fault=texts.fault or "nothing was read")


def read_texts(timeout_sec: float, proc: Path = Path("/proc")) -> CifsTexts:
    """Read DebugData and the mounts of the host, within ``timeout_sec`` + 0.1 s.

    Reading DebugData blocks on the locks of a sick session, so children read, which die with the
    calling *thread*. Without rights for the mounts of the first process, this process's are read.
    """
    paths = (proc / "fs/cifs/DebugData", proc / "1/mountinfo", proc / "self/mountinfo")
    try:
        debug_data, host, own = read_files(paths, timeout_sec)
    except OSError as error:
        return CifsTexts("", "", f"no child to read {paths[0]} could be started: {error}")
    mounts = own if host.fault else host
    faults = [text.fault for text in (debug_data, mounts) if text.fault]
    return CifsTexts(debug_data.text, mounts.text, "; ".join(faults))


def _only(names: Iterable[str]) -> str:
    """The name, when there is exactly one."""
    distinct = set(names)
    return distinct.pop() if len(distinct) == 1 else ""


def _name(server: Server) -> str:
    # Sessions share the connection, and with it the address.
    return server.hostname or next((session.address for session in server.sessions), "")
