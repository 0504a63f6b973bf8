"""DebugData as recorded on real mounts (tests/data/debug_data), and forms that were not."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.cifs.debug_data import PendingCommand, Server, Session, Share, parse_debug_data

RECORDED = Path(__file__).parents[1] / "data" / "debug_data"
KERNELS = ("6.1", "6.12")
SCENES = ("no_mounts", "idle", "hang", "killed", "two_servers", "channels")
WRITE = 9

# Written after cifs_debug.c of Linux 5.15: pending commands stand after the sessions.
LINUX_5_15 = """\
Display Internal CIFS Data Structures for Debugging
---------------------------------------------------
CIFS Version 2.33
Features: DFS,FSCACHE,STATS,DEBUG,ALLOW_INSECURE_LEGACY,CIFS_POSIX,UPCALL(SPNEGO),XATTR,ACL,WITNESS
CIFSMaxBufSize: 16384
Active VFS Requests: 2

Servers: \n\
1) ConnectionId: 0x1 Hostname: filer.example \n\
Number of credits: 8190 Dialect 0x311 signed
TCP status: 1 Instance: 1
Local Users To Server: 1 SecMode: 0x1 Req On Wire: 2
In Send: 0 In MaxReq Wait: 0

\tSessions: \n\
\t1) Address: 192.0.2.7 Uses: 2 Capability: 0x300047\tSession Status: 1 Guest \n\
\tSecurity type: RawNTLMSSP  SessionId: 0xffff800000000001 encrypted signed
\tUser: 0 Cred User: 0

\tExtra Channels: 1 \n\

\t\tChannel: 2 ConnectionId: 0x2
\t\tNumber of credits: 8190 Dialect 0x311
\t\tTCP status: 1 Instance: 1
\t\tLocal Users To Server: 1 SecMode: 0x1 Req On Wire: 0
\t\tIn Send: 0 In MaxReq Wait: 0\tDISCONNECTED \t[RECONNECTING] \n\

\tShares: \n\
\t0) IPC: \\\\filer.example\\IPC$ Mounts: 1 DevInfo: 0x0 Attributes: 0x0
\tPathComponentMax: 0 Status: 1 type: 0 Serial Number: 0x0
\tShare Capabilities: None\tShare Flags: 0x0
\ttid: 0x1\tMaximal Access: 0x1f00a9

\t1) \\\\filer.example\\home Mounts: 1 Type: NTFS DevInfo: 0x20 Attributes: 0x1006f
\tPathComponentMax: 255 Status: 1 type: DISK Serial Number: 0x1 Encrypted
\tShare Capabilities: None Aligned,\tShare Flags: 0x0
\ttid: 0x5\tOptimal sector size: 0x200\tMaximal Access: 0x1f01ff

\t2) \\\\filer.example\\old Mounts: 1 DevInfo: 0x20 Attributes: 0x1006f
\tPathComponentMax: 255 Status: 1 type: DISK Serial Number: 0x2\tDISCONNECTED \n\


\tServer interfaces: 1
\t1)\tSpeed: 1000000000 bps
\t\tCapabilities: rss \n\
\t\tIPv4: 192.0.2.7


\tMIDs: \n\
\tState: 2 com: 8 pid: 811 cbdata: 00000000aaaaaaaa mid 18446744073709551614

\tState: 4 com: 9 pid: 812 cbdata: 00000000bbbbbbbb mid 78

--

2) ConnectionId: 0x3 \n\
Number of credits: 1 Dialect 0x311
TCP status: 2 Instance: 1
Local Users To Server: 1 SecMode: 0x1 Req On Wire: 1
In Send: 0 In MaxReq Wait: 0

\tSessions: \n\
\t\t[NONE]

\tMIDs: \n\
\tState: 1 com: 0 pid: 900 cbdata: 00000000cccccccc mid 0

--

3) ConnectionId: 0x4 Hostname: old.example \n\
Number of credits: 50 Dialect 0x0
TCP status: 1 Instance: 1
Local Users To Server: 1 SecMode: 0x3 Req On Wire: 0
In Send: 0 In MaxReq Wait: 0

\tSessions: \n\
\t1) Name: 2001:db8::7  Domain: WORK GROUP Uses: 1 OS: Windows 5.0 \n\
\tNOS: Windows 2000 LAN Manager\tCapability: 0x8000e3fd
\tSMB session status: 1 \n\
\tSecurity type: RawNTLMSSP  SessionId: 0x0
\tUser: 0 Cred User: 0

\tShares: \n\
\t0) IPC: none

\t1) \\\\old.example\\c$ Mounts: 1 Type: NTFS DevInfo: 0x20 Attributes: 0x6f
\tPathComponentMax: 255 Status: 1 type: DISK Serial Number: 0x3


\tMIDs: \n\

--

Witness registrations:
Id: 1 Refs: 1 Network name: 'filer.example'(y) Share name: 'home'(y) Ip address: 192.0.2.7(y)
"""


def recorded(kernel: str, scene: str, kind: str = "debug_data") -> str:
    """One recorded text; ``kind`` is debug_data or mountinfo."""
    return (RECORDED / kernel / f"{scene}.{kind}").read_text(encoding="utf-8")


def shares(server: Server) -> list[list[str]]:
    """Names of the shares of each session, without IPC$."""
    return [
        [share.unc for share in session.shares if not share.is_ipc] for session in server.sessions
    ]


@pytest.mark.parametrize("kernel", KERNELS)
def test_two_sessions_of_one_server(kernel: str) -> None:
    (server,) = parse_debug_data(recorded(kernel, "idle"))
    assert (server.connection_id, server.hostname, server.pending) == (1, "10.99.0.2", ())
    assert shares(server) == [[r"\\10.99.0.2\private"], [r"\\10.99.0.2\share"]]
    assert {session.address for session in server.sessions} == {"10.99.0.2"}
    assert len({session.session_id for session in server.sessions} - {0}) == 2
    of_ipc = [share.unc for session in server.sessions for share in session.shares if share.is_ipc]
    assert of_ipc == [r"\\10.99.0.2\IPC$"] * 2
    tree_ids = {share.tree_id for session in server.sessions for share in session.shares}
    assert len(tree_ids - {0}) == 4


@pytest.mark.parametrize("kernel", KERNELS)
def test_commands_that_hang_are_listed_once(kernel: str) -> None:
    """The kernel lists them below both sessions of the connection."""
    text = recorded(kernel, "hang")
    (server,) = parse_debug_data(text)
    assert text.count(f" com: {WRITE} ") == 6
    assert [(pending.command, pending.state) for pending in server.pending] == [(WRITE, 2)] * 3
    assert len({pending.mid for pending in server.pending}) == 3
    assert len({pending.thread_id for pending in server.pending}) == 3


@pytest.mark.parametrize("kernel", KERNELS)
def test_sessions_that_lost_their_server_are_still_known(kernel: str) -> None:
    text = recorded(kernel, "killed")
    assert "DISCONNECTED" in text
    before, after = parse_debug_data(recorded(kernel, "hang")), parse_debug_data(text)
    assert before[0].sessions == after[0].sessions


@pytest.mark.parametrize("kernel", KERNELS)
def test_two_servers_and_a_share_with_an_odd_name(kernel: str) -> None:
    servers = parse_debug_data(recorded(kernel, "two_servers"))
    assert {server.hostname: shares(server) for server in servers} == {
        "fileserver.example": [
            [r"\\fileserver.example\Odd Mounts: 3 näme#1", r"\\fileserver.example\share"]
        ],
        "10.99.0.2": [[r"\\10.99.0.2\private"], [r"\\10.99.0.2\share"]],
    }
    assert {server.sessions[0].address for server in servers} == {"10.99.0.2", "10.99.0.3"}


@pytest.mark.parametrize("kernel", KERNELS)
def test_extra_channels_belong_to_their_server(kernel: str) -> None:
    text = recorded(kernel, "channels")
    assert "Channel: 2 ConnectionId" in text
    by_name = {server.hostname: server for server in parse_debug_data(text)}
    assert set(by_name) == {"10.99.0.2", "fileserver.example"}
    assert len(by_name["10.99.0.2"].sessions) == 1
    assert [pending.command for pending in by_name["10.99.0.2"].pending] == [WRITE] * 3
    assert by_name["fileserver.example"].pending == ()


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_host_without_mounts_has_no_servers(kernel: str) -> None:
    assert parse_debug_data(recorded(kernel, "no_mounts")) == ()


def test_the_form_of_linux_5_15() -> None:
    assert parse_debug_data(LINUX_5_15) == (
        Server(
            1,
            "filer.example",
            (
                Session(
                    0xFFFF_8000_0000_0001,
                    "192.0.2.7",
                    (
                        Share(r"\\filer.example\IPC$", 1, is_ipc=True),
                        Share(r"\\filer.example\home", 5, is_ipc=False),
                        Share(r"\\filer.example\old", 0, is_ipc=False),
                    ),
                ),
            ),
            (
                PendingCommand(command=8, mid=2**64 - 2, thread_id=811, state=2),
                PendingCommand(command=9, mid=78, thread_id=812, state=4),
            ),
        ),
        Server(3, "", (), (PendingCommand(command=0, mid=0, thread_id=900, state=1),)),
        Server(
            4,
            "old.example",
            (Session(0, "2001:db8::7", (Share(r"\\old.example\c$", 0, is_ipc=False),)),),
            (),
        ),
    )


def test_channels_may_have_the_same_mid_at_once() -> None:
    text = (
        "1) ConnectionId: 0x1 Hostname: a \n\t1) Address: 192.0.2.1 Uses: 1 \n"
        "\tServer ConnectionId: 0x1\n\t\tState: 2 com: 9 pid: 5 cbdata: 0 mid 7\n"
        "\tServer ConnectionId: 0x2\n\t\tState: 2 com: 9 pid: 6 cbdata: 0 mid 7\n"
        "2) ConnectionId: 0x9 Hostname: b \n\t\tState: 2 com: 8 pid: 7 cbdata: 0 mid 7\n"
    )
    first, second = parse_debug_data(text)
    assert [pending.thread_id for pending in first.pending] == [5, 6]
    assert [pending.thread_id for pending in second.pending] == [7]


def test_a_number_that_is_none_is_passed_over() -> None:
    head = "1) ConnectionId: 0x1 Hostname: a \n"
    text = f"{head}\tState: 2 com: 9 pid: 1 cbdata: 0 mid {'9' * 5000}\n"
    assert [server.hostname for server in parse_debug_data(text)] == ["a"]


def test_a_share_may_be_named_like_the_text_around_it() -> None:
    unc = r"\\a\IPC: x Mounts: 3 Type: y"
    head = "1) ConnectionId: 0x1 Hostname: a \n\t1) Address: 192.0.2.1 Uses: 1 \n"
    (server,) = parse_debug_data(f"{head}\t1) {unc} Mounts: 1 DevInfo: 0x20 Attributes: 0x1\n")
    assert server.sessions[0].shares == (Share(unc, 0, is_ipc=False),)


def test_characters_that_end_a_line_elsewhere_end_none_here() -> None:
    name = "a\x0bb\x85c\u2028d"
    text = f"1) ConnectionId: 0x1 Hostname: {name} \n"
    assert parse_debug_data(text) == (Server(1, name, (), ()),)


TEXTS = [LINUX_5_15, *(recorded(kernel, scene) for kernel in KERNELS for scene in SCENES)]


@pytest.mark.parametrize(
    "text", TEXTS, ids=["5.15", *(f"{k}-{s}" for k in KERNELS for s in SCENES)]
)
def test_a_text_that_was_cut_tells_nothing_that_the_whole_one_does_not(text: str) -> None:
    whole = parse_debug_data(text)
    assert parse_debug_data(text + "1) ConnectionId: 0x99") == whole
    for end in range(0, len(text), 5):
        cut = parse_debug_data(text[:end])
        assert len(cut) <= len(whole)
        for part, full in zip(cut, whole, strict=False):
            assert (part.connection_id, part.hostname) == (full.connection_id, full.hostname)
            assert set(part.pending) <= set(full.pending)
            for session, full_session in zip(part.sessions, full.sessions, strict=False):
                assert session.session_id in {0, full_session.session_id}
                names = [share.unc for share in session.shares]
                assert names == [share.unc for share in full_session.shares][: len(names)]
                assert {share.tree_id for share in session.shares} <= {
                    0,
                    *(share.tree_id for share in full_session.shares),
                }


PIECES = st.sampled_from(
    [
        *LINUX_5_15.split("\n"),
        "1) ",
        "1) ConnectionId: 0x",
        "1) Hostname: x",
        "\t1) Address: ",
        "\ttid: 0x5",
        "\tServer ConnectionId: 0x3",
        f"\tState: 2 com: 9 pid: 1 cbdata: 0 mid {'9' * 5000}",
        "\t1) \\\\ Mounts: 1 DevInfo: ",
    ]
)


@given(st.lists(PIECES | st.text(), max_size=30).map("\n".join))
def test_garbage_never_raises(text: str) -> None:
    servers = parse_debug_data(text + "\n")
    assert all(isinstance(server, Server) for server in servers)
