"""Which server, share and mount point a command belongs to: recorded states and unclear ones."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.cifs.debug_data import PendingCommand, Server, Session, Share
from agent.cifs.mounts import CifsMount, cifs_mount_points, parse_mounts
from agent.cifs.state import NO_STATE, CifsState, parse_state
from tests.unit.test_debug_data import KERNELS, WRITE, recorded

MOUNTINFO = r"""
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
90 22 0:41 / /mnt/two\040words rw shared:2 master:1 - cifs //Server.Example/Share/sub/dir rw
91 22 0:42 / /mnt/plain rw - smb3 //server/other\040share\134 rw
92 22 0:41 /below /mnt/plain rw - cifs \\server.example\share rw
93 22 0:43 / /mnt/cifs rw - ext4 //server/share rw
94 22 0:44 / /mnt/none rw - cifs none rw
95 22 0:45 / /mnt/host rw - cifs //server/ rw
"""


def recorded_state(kernel: str, scene: str) -> CifsState:
    return parse_state(recorded(kernel, scene), recorded(kernel, scene, "mountinfo"))


def session(number: int, *shares: Share) -> Session:
    return Session(number, "192.0.2.1", shares)


def share(name: str, tree_id: int, is_ipc: bool = False) -> Share:
    return Share(rf"\\a\{name}", tree_id, is_ipc)


IPC = share("IPC$", 1, is_ipc=True)


def state_of(*servers: Server) -> CifsState:
    return CifsState(servers, ())


def server(name: str, *sessions: Session, pending: tuple[PendingCommand, ...] = ()) -> Server:
    return Server(1, name, sessions, pending)


def test_mounts_of_smb_only_with_the_share_that_they_show() -> None:
    assert parse_mounts(MOUNTINFO) == (
        CifsMount(r"\\Server.Example\Share", "/mnt/two words"),
        CifsMount(r"\\server\other share", "/mnt/plain"),
        CifsMount(r"\\server.example\share", "/mnt/plain"),
        CifsMount("", "/mnt/none"),
        CifsMount("", "/mnt/host"),
    )


def test_mount_points_each_once() -> None:
    expected = ["/mnt/two words", "/mnt/plain", "/mnt/none", "/mnt/host"]
    assert cifs_mount_points(MOUNTINFO) == expected


@given(st.text() | st.sampled_from(["- cifs", " - cifs", "1 2 3 4 5 - cifs", " - ", "a - smb3 "]))
def test_garbage_is_no_mount(text: str) -> None:
    assert all(mount.mount_point for mount in parse_mounts(f"{text}\n{MOUNTINFO}")[-5:])


@pytest.mark.parametrize("kernel", KERNELS)
def test_every_recorded_tree_leads_to_its_server_share_and_mount(kernel: str) -> None:
    state = recorded_state(kernel, "two_servers")
    found = {
        (
            state.server_of(session.session_id),
            state.share_of(session.session_id, share.tree_id),
            state.mount_points(share.unc),
        )
        for server in state.servers
        for session in server.sessions
        for share in session.shares
    }
    assert found == {
        ("10.99.0.2", r"\\10.99.0.2\IPC$", ()),
        ("10.99.0.2", r"\\10.99.0.2\private", ("/mnt/private",)),
        ("10.99.0.2", r"\\10.99.0.2\share", ("/mnt/share",)),
        ("fileserver.example", r"\\fileserver.example\IPC$", ()),
        ("fileserver.example", r"\\fileserver.example\share", ("/mnt/other place",)),
        ("fileserver.example", r"\\fileserver.example\Odd Mounts: 3 näme#1", ("/mnt/odd",)),
    }
    assert set(state.server_names()) == {"10.99.0.2", "fileserver.example"}
    assert not state.sole_session()


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("scene", ["hang", "channels"])
def test_recorded_commands_that_hang_are_pending(kernel: str, scene: str) -> None:
    state = recorded_state(kernel, scene)
    mids = [pending.mid for server in state.servers for pending in server.pending]
    assert len(mids) == 3
    assert all(state.is_pending(WRITE, mid) for mid in mids)
    assert not any(state.is_pending(WRITE - 1, mid) for mid in mids)
    assert not state.is_pending(WRITE, max(mids) + 1)
    assert not any(recorded_state(kernel, "idle").is_pending(WRITE, mid) for mid in mids)


@pytest.mark.parametrize(
    ("mid_state", "waits"),
    [
        (0, False),
        (1, True),
        (2, True),
        (4, False),
        (8, False),
        (16, False),
        (32, False),
        (64, False),
    ],
)
def test_only_what_the_server_did_not_answer_is_pending(mid_state: int, waits: bool) -> None:
    pending = (PendingCommand(command=8, mid=77, thread_id=1, state=mid_state),)
    assert state_of(server("a"), server("b", pending=pending)).is_pending(8, 77) is waits


def test_a_server_without_a_name_goes_by_its_address() -> None:
    state = state_of(server("", session(5)), server(""), server("b", session(6)))
    assert (state.server_of(5), state.server_of(6), state.server_of(7)) == ("192.0.2.1", "b", "")
    assert state.server_names() == ("192.0.2.1", "b")


def test_two_connections_to_one_server_are_one_name() -> None:
    state = state_of(server("a", session(5)), server("a", session(6)))
    assert state.server_names() == ("a",)


def test_a_session_id_that_two_servers_gave_is_nobodys() -> None:
    state = state_of(server("a", session(5, share("x", 2))), server("b", session(5, share("y", 3))))
    assert state.server_of(5) == ""
    assert state.knows(5)
    assert (state.share_of(5, 2), state.share_of(5, 9)) == (r"\\a\x", "")


def test_tree_zero_is_of_the_only_share_and_an_unknown_one_of_none() -> None:
    one, two = session(5, IPC, share("x", 2)), session(6, IPC, share("x", 2), share("y", 3))
    state = state_of(server("a", one, two))
    assert [state.share_of(5, tree) for tree in (1, 2, 99, 0)] == [
        IPC.unc,
        r"\\a\x",
        "",
        r"\\a\x",
    ]
    assert [state.share_of(6, tree) for tree in (1, 2, 3, 99)] == [IPC.unc, r"\\a\x", r"\\a\y", ""]
    assert state.share_of(7, 2) == ""


def test_trees_without_an_id_are_not_confused() -> None:
    state = state_of(server("a", session(5, share("x", 0), share("y", 3))))
    assert (state.share_of(5, 0), state.share_of(5, 3)) == ("", r"\\a\y")


def test_two_trees_of_one_share_are_one_share() -> None:
    state = state_of(server("a", session(5, IPC, share("x", 2), share("x", 3))))
    assert state.share_of(5, 0) == r"\\a\x"


def test_session_zero_is_nobodys() -> None:
    state = state_of(server("a", session(0, share("x", 2))))
    assert not state.knows(0)
    assert (state.server_of(0), state.share_of(0, 2)) == ("", "")


def test_the_sole_session() -> None:
    assert state_of(server("a", session(5)), server("b")).sole_session()
    assert not state_of(server("a", session(5), session(6))).sole_session()
    assert not state_of(server("a", session(5)), server("b", session(6))).sole_session()


def test_mounts_are_found_whatever_the_case_and_below_the_share() -> None:
    state = parse_state("", MOUNTINFO)
    assert state.mount_points(r"\\SERVER.example\SHARE") == ("/mnt/two words", "/mnt/plain")
    assert state.mount_points(r"\\server.example\sha") == ()
    assert state.mount_points("") == ()


def test_no_state_knows_nothing() -> None:
    assert parse_state("", "") == NO_STATE
    assert (NO_STATE.server_of(1), NO_STATE.share_of(1, 1), NO_STATE.server_names()) == ("", "", ())
    answers = (NO_STATE.is_pending(9, 1), NO_STATE.knows(1), NO_STATE.sole_session())
    assert answers == (False, False, False)
