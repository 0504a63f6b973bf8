"""A real SMB server beside the client, in the same guest, and the faults to put between them.

smbd runs in a network namespace of its own behind a veth pair. The faults sit on the server's
end only: a delay is paid once per command, and nothing else in the guest feels it.

    client 10.99.0.1 (smb-client) ──── (smb-server) 10.99.0.2 smbd
"""

import shlex
from collections.abc import Iterator
from contextlib import contextmanager

from tests.vm.machine import VirtualMachine

SERVER = "10.99.0.2"

#: In the server's namespace nothing but smbd and its veth end.
NAMESPACE = "smb-server"
UNIT = "lab-smbd.service"

#: A tree that anyone may write to, and one for SMB_USER only.
PUBLIC_SHARE, PRIVATE_SHARE = "share", "private"
SMB_USER, SMB_PASSWORD = "alice", "a-lab-password"
CREDENTIALS_FILE = "/root/smb-credentials"

#: No client cache: every operation of a test becomes a command on the wire.
MOUNT_OPTIONS = "vers=3.1.1,cache=none,actimeo=0,nolease"

_SMB_CONF = f"""\
[global]
server role = standalone server
server min protocol = SMB3_11
map to guest = Bad User
load printers = no
disable spoolss = yes
log level = 1
[{PUBLIC_SHARE}]
path = /srv/{PUBLIC_SHARE}
guest ok = yes
force user = {SMB_USER}
read only = no
[{PRIVATE_SHARE}]
path = /srv/{PRIVATE_SHARE}
valid users = {SMB_USER}
read only = no
"""

_UNIT_FILE = f"""\
[Service]
Type=notify
NetworkNamespacePath=/run/netns/{NAMESPACE}
ExecStart=/usr/sbin/smbd --foreground --no-process-group
"""

# A large MTU: replies and writes then leave as one packet, and a delay is paid once.
_SET_UP = f"""
ip netns add {NAMESPACE}
ip link add smb-client mtu 65535 type veth peer name smb-server mtu 65535 netns {NAMESPACE}
ip addr add 10.99.0.1/24 dev smb-client
ip link set smb-client up
ip -n {NAMESPACE} addr add {SERVER}/24 dev smb-server
ip -n {NAMESPACE} link set smb-server up
ip -n {NAMESPACE} link set lo up
useradd --no-create-home {SMB_USER}
install -d -o {SMB_USER} -m 0755 /srv/{PUBLIC_SHARE} /srv/{PRIVATE_SHARE}
cat > /etc/samba/smb.conf <<'END'
{_SMB_CONF}
END
cat > /etc/systemd/system/{UNIT} <<'END'
{_UNIT_FILE}
END
printf '%s\\n%s\\n' {SMB_PASSWORD} {SMB_PASSWORD} | smbpasswd -s -a {SMB_USER}
umask 077
printf 'username=%s\\npassword=%s\\n' {SMB_USER} {SMB_PASSWORD} > {CREDENTIALS_FILE}
systemctl daemon-reload
systemctl start {UNIT}
modprobe cifs
"""


class SmbShare:
    """The server and its mounts. The fault methods are context managers that also undo."""

    def __init__(self, vm: VirtualMachine) -> None:
        self._vm = vm

    def set_up(self) -> None:
        """Configure and start the server. Once per machine."""
        self._vm.run(_SET_UP)

    def mount(
        self, mount_point: str, share: str = PUBLIC_SHARE, options: str = MOUNT_OPTIONS
    ) -> None:
        """Mount the public share as guest, the private one as SMB_USER."""
        who = "guest" if share == PUBLIC_SHARE else f"credentials={CREDENTIALS_FILE}"
        self._vm.run(["mkdir", "-p", mount_point])
        self._vm.run(
            ["mount", "-t", "cifs", f"//{SERVER}/{share}", mount_point, "-o", f"{who},{options}"]
        )

    def unmount(self, mount_point: str) -> None:
        self._vm.run(["umount", mount_point])

    @staticmethod
    def server_path(path: str, share: str = PUBLIC_SHARE) -> str:
        """Where the server keeps a path that the client sees relative to its mount."""
        return f"/srv/{share}/{path}"

    @contextmanager
    def server_delay(self, milliseconds: int) -> Iterator[None]:
        """Every packet of the server leaves that much later."""
        with self._netem("delay", f"{milliseconds}ms"):
            yield

    @contextmanager
    def dropped_connection(self) -> Iterator[None]:
        """Nothing that the server sends arrives; the client is told nothing either."""
        with self._netem("loss", "100%"):
            yield

    @contextmanager
    def server_hang(self) -> Iterator[None]:
        """The server's processes are stopped: connections stay, replies do not come."""
        self._vm.run(["systemctl", "kill", "--signal=STOP", UNIT])
        try:
            yield
        finally:
            self._vm.run(["systemctl", "kill", "--signal=CONT", UNIT])

    @contextmanager
    def server_killed(self) -> Iterator[None]:
        """The server dies and its connections with it; afterwards a new one is there."""
        self._vm.run(["systemctl", "kill", "--signal=KILL", UNIT])
        try:
            yield
        finally:
            self._vm.run(["systemctl", "restart", UNIT])

    @contextmanager
    def permission_denied(self, path: str, share: str = PUBLIC_SHARE) -> Iterator[None]:
        """The server may no longer open the file or directory: EACCES at the client."""
        target = shlex.quote(self.server_path(path, share))
        self._vm.run(f"chown root {target}; chmod 0000 {target}")
        try:
            yield
        finally:
            self._vm.run(f"chmod 0755 {target}; chown {SMB_USER} {target}")

    @contextmanager
    def _netem(self, *impairment: str) -> Iterator[None]:
        qdisc = ["tc", "-n", NAMESPACE, "qdisc"]
        where = ["dev", "smb-server", "root"]
        self._vm.run([*qdisc, "add", *where, "netem", "limit", "100000", *impairment])
        try:
            yield
        finally:
            self._vm.run([*qdisc, "del", *where])
