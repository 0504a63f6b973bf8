r"""The text of /proc/fs/cifs/DebugData as data: servers, sessions, shares, pending commands.

The text is made by cifs_debug_data_proc_show() in cifs_debug.c and smb3_dump_share_caps() in
smb2ops.c. Read in the source of 5.15 and of later than 6.14, recorded on 6.1 and 6.12:

* Pending commands stand once, after the sessions of a server (5.15); or below each session, by
  connection, and so again for each session that shares the connection (updates of 6.1, and since).
* Those of a session's extra channels are listed only in the newer form.
* What is told about a server, a session or a share grows; only what is needed here is read.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field


@dataclass(frozen=True)
class PendingCommand:
    """One command on the wire: an SMB2 command code, and ``thread_id``, which issued it.

    ``state`` is a MID_* value of cifsglob.h.
    """

    command: int
    mid: int
    thread_id: int
    state: int


@dataclass(frozen=True)
class Share:
    r"""One tree connection. ``unc`` is \\server\share; ``tree_id`` is 0 where none is told."""

    unc: str
    tree_id: int
    is_ipc: bool


@dataclass(frozen=True)
class Session:
    """One SMB session; ``session_id`` is 0 while the session is being set up."""

    session_id: int
    address: str
    shares: tuple[Share, ...]


@dataclass(frozen=True)
class Server:
    """One connection to a server, with the extra channels of its sessions.

    ``hostname`` is the name that was mounted, "" where none is told.
    """

    connection_id: int | None
    hostname: str
    sessions: tuple[Session, ...]
    pending: tuple[PendingCommand, ...]


def parse_debug_data(text: str) -> tuple[Server, ...]:
    """The servers in ``text``; what it does not know, it passes over. Never raises.

    A last line without its newline was cut, and a number in it may be: it is not read.
    """
    servers: list[_ServerSoFar] = []
    for line in text.split("\n")[:-1]:
        if match := _SERVER.match(line):
            connection_id, hostname = match.groups()
            number = int(connection_id, 16) if connection_id else None
            servers.append(_ServerSoFar(number, hostname or ""))
        elif servers:
            _feed_server(line, servers[-1])
    return tuple(server.finished() for server in servers)


# Bounded, because int() refuses thousands of digits.
_DECIMAL, _HEX = "([0-9]{1,20})", "0x([0-9a-f]{1,16})"

_SERVER = re.compile(rf"[0-9]+\) (?=[CH])(?:ConnectionId: {_HEX} ?)?(?:Hostname: (.*?) ?)?$")
_SESSION = re.compile(r"\t[0-9]+\) (?:Address|Name): (\S+)")
_SESSION_ID = re.compile(rf"\tSecurity type: .* SessionId: {_HEX}")
# A share's name may hold blanks, and more than this.
_SHARE = re.compile(r"\t[0-9]+\) (IPC: )?(\\\\.+) Mounts: [0-9]+ (?:Type|DevInfo): ")
_TREE_ID = re.compile(rf"\ttid: {_HEX}")
_CONNECTION = re.compile(rf"\tServer ConnectionId: {_HEX}")
_PENDING = re.compile(
    rf"\t+State: {_DECIMAL} com: {_DECIMAL} pid: {_DECIMAL} cbdata: \S+ mid {_DECIMAL}"
)


@dataclass
class _SessionSoFar:
    address: str
    session_id: int = 0
    shares: list[Share] = field(default_factory=list)

    def finished(self) -> Session:
        return Session(self.session_id, self.address, tuple(self.shares))


@dataclass
class _ServerSoFar:
    connection_id: int | None
    hostname: str
    sessions: list[_SessionSoFar] = field(default_factory=list)
    # The connection whose commands are being listed, where that is told.
    listed: int | None = None
    # By connection and mid, because each session lists the commands of the connection again.
    pending: dict[tuple[int | None, int], PendingCommand] = field(default_factory=dict)

    def finished(self) -> Server:
        return Server(
            self.connection_id,
            self.hostname,
            tuple(session.finished() for session in self.sessions),
            tuple(self.pending.values()),
        )


def _feed_server(line: str, server: _ServerSoFar) -> None:
    """Take a line of the server; it belongs to the session that came last."""
    if match := _SESSION.match(line):
        server.sessions.append(_SessionSoFar(match[1]))
    elif match := _CONNECTION.match(line):
        server.listed = int(match[1], 16)
    elif match := _PENDING.match(line):
        state, command, thread_id, mid = map(int, match.groups())
        server.pending[server.listed, mid] = PendingCommand(command, mid, thread_id, state)
    elif server.sessions:
        _feed_session(line, server.sessions[-1])


def _feed_session(line: str, session: _SessionSoFar) -> None:
    if match := _SESSION_ID.match(line):
        session.session_id = int(match[1], 16)
    elif match := _SHARE.match(line):
        session.shares.append(Share(match[2], tree_id=0, is_ipc=match[1] is not None))
    elif session.shares and (match := _TREE_ID.match(line)):
        last = session.shares.pop()
        session.shares.append(Share(last.unc, int(match[1], 16), last.is_ipc))
