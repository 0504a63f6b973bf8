"""Faults of the SMB server and its link, as pairs of bash scripts for the guest.

See `tests.vm.smb_share` for where server, link and shares are.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass

SERVER_UNIT = "lab-smbd.service"

#: In the server's namespace nothing but smbd and its veth end.
NAMESPACE = "smb-server"
CLIENT_END, SERVER_END = "smb-client", "smb-server"

_FILLER_UNIT = "lab-filler"
# One process, since a new one each time would slow an emulated guest down.
_KEEP_FULL = """
import os, sys, time
file = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND)
while True:
    try:
        os.write(file, bytes(65536))
    except OSError:
        time.sleep(0.05)
"""
_TABLES = "iptables --wait"


@dataclass(frozen=True)
class Fault:
    """``begin`` puts the fault there, ``end`` takes it away; both return when that is done."""

    begin: str
    end: str


def server_link(*impairment: str) -> Fault:
    """What netem does to every packet that the server sends, such as ``delay 300ms``."""
    return _qdisc(f"tc -n {NAMESPACE} qdisc", SERVER_END, "netem limit 100000", *impairment)


def client_link(*impairment: str) -> Fault:
    """What netem does to every packet that the client sends, such as ``rate 500kbit``."""
    return device(CLIENT_END, *impairment)


def device(name: str, *impairment: str) -> Fault:
    """What netem does to every packet that leaves the guest by that network device."""
    return _qdisc("tc qdisc", name, "netem limit 100000", *impairment)


def delay(milliseconds: int, jitter_ms: int = 0) -> Fault:
    """Every packet of the server leaves that much later, give or take ``jitter_ms``."""
    return server_link("delay", f"{milliseconds}ms", *([f"{jitter_ms}ms"] if jitter_ms else []))


def server_stopped() -> Fault:
    """The server's processes are stopped: connections stay, replies do not come."""
    return Fault(
        f"systemctl kill --signal=STOP {SERVER_UNIT}",
        f"systemctl kill --signal=CONT {SERVER_UNIT}",
    )


def server_killed() -> Fault:
    """The server dies and its connections with it; afterwards a new one is there."""
    return Fault(
        f"systemctl kill --signal=KILL {SERVER_UNIT}",
        f"systemctl restart {SERVER_UNIT}",
    )


def server_starved(percent: int) -> Fault:
    """The server gets that share of one processor."""
    limit = f"systemctl set-property --runtime {SERVER_UNIT} CPUQuota="
    return Fault(f"{limit}{percent}%", limit)


def connection_dropped() -> Fault:
    """Packets to and from the server vanish; neither side is told."""
    rules = (
        f"INPUT --in-interface {CLIENT_END} --protocol tcp --sport 445 --jump DROP",
        f"OUTPUT --out-interface {CLIENT_END} --protocol tcp --dport 445 --jump DROP",
    )
    return _filtered(*rules)


def connection_reset() -> Fault:
    """Every packet to the server is answered with a reset: connections end, no new one comes."""
    return _filtered(
        f"OUTPUT --out-interface {CLIENT_END} --protocol tcp --dport 445 "
        "--jump REJECT --reject-with tcp-reset"
    )


def permission_lost(path: str, owner: str) -> Fault:
    """The server may no longer open the file or directory ``path`` of its own: EACCES."""
    target = shlex.quote(path)
    return Fault(
        f"chown root {target}; chmod 0000 {target}", f"chmod 0755 {target}; chown {owner} {target}"
    )


def files_vanished(directory: str, owner: str) -> Fault:
    """The server's ``directory`` is empty: ENOENT for every file that was in it."""
    target, away = shlex.quote(directory), shlex.quote(f"{directory}.away")
    return Fault(
        f"mv {target} {away}; install -d -o {owner} {target}", f"rmdir {target}; mv {away} {target}"
    )


def file_system_full(mount_point: str) -> Fault:
    """The server's file system is full and stays so when files are deleted: ENOSPC."""
    filler = f"{mount_point}/filler"
    return Fault(
        f"cat /dev/zero 2>/dev/null >{filler} || true; "
        f"systemd-run --quiet --collect --unit={_FILLER_UNIT} "
        f"python3 -IS -c {shlex.quote(_KEEP_FULL)} {filler}",
        f"systemctl stop {_FILLER_UNIT}; rm {filler}",
    )


def file_system_read_only(mount_point: str) -> Fault:
    """The server's file system refuses writes: EROFS. It waits for a moment without writers."""
    return Fault(
        f"for try in $(seq 200); do mount -o remount,ro {mount_point} 2>/dev/null && exit; done; "
        "exit 1",
        f"mount -o remount,rw {mount_point}",
    )


def _qdisc(command: str, device: str, *discipline: str) -> Fault:
    return Fault(
        f"{command} add dev {device} root {' '.join(discipline)}",
        f"{command} del dev {device} root",
    )


def _filtered(*rules: str) -> Fault:
    return Fault(
        "; ".join(f"{_TABLES} --insert {rule}" for rule in rules),
        "; ".join(f"{_TABLES} --delete {rule}" for rule in rules),
    )
