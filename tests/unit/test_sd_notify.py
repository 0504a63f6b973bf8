import contextlib
import secrets
import socket
import threading

import pytest

from agent.service import sd_notify
from agent.service.sd_notify import notify


@pytest.mark.parametrize("abstract", [False, True])
def test_manager_hears_the_state(tmp_path, monkeypatch, abstract):
    name = f"aod-{secrets.token_hex(8)}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + name if abstract else name)
        manager.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", "@" + name if abstract else name)
        notify("READY=1\nSTATUS=läuft")
        assert manager.recv(4096).decode() == "READY=1\nSTATUS=läuft"


@pytest.mark.parametrize("address", [None, "", "relative", "@nobody-there", "/nobody/there"])
def test_nobody_listening_is_no_error(monkeypatch, address):
    if address is None:
        monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    else:
        monkeypatch.setenv("NOTIFY_SOCKET", address)
    notify("READY=1")


@pytest.fixture
def full_manager(tmp_path, monkeypatch):
    """A manager whose queue takes nothing more until somebody reads from it."""
    address = str(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other,
    ):
        manager.bind(address)
        manager.settimeout(10)
        other.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                other.sendto(b"STATUS=busy", address)
        yield manager


def test_manager_that_is_behind_still_hears_the_state(full_manager, monkeypatch):
    monkeypatch.setattr(sd_notify, "TIMEOUT_SEC", 60)
    thread = threading.Thread(target=notify, args=["READY=1"])
    thread.start()
    thread.join(0.2)  # enough for one that gives up at once
    heard = [full_manager.recv(4096)]
    while heard[-1] != b"READY=1":
        heard.append(full_manager.recv(4096))
    thread.join()


def test_manager_that_never_reads_does_not_block_for_ever(full_manager, monkeypatch):
    monkeypatch.setattr(sd_notify, "TIMEOUT_SEC", 0.01)
    notify("READY=1")
