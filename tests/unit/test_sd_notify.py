import secrets
import socket

import pytest

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


def test_manager_that_does_not_read_does_not_block(tmp_path, monkeypatch):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        for _ in range(5000):
            notify("WATCHDOG=1")
