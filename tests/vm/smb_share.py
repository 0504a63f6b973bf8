"""A real SMB server beside the client, in the same guest, and the faults to put between them.

smbd runs in a network namespace of its own behind a veth pair. The faults sit on the server's
end only: a delay is paid once per command, and nothing else in the guest feels it.

    client 10.99.0.1 (smb-client) ──── (smb-server) 10.99.0.2 smbd
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from tests.vm import faults
from tests.vm.faults import CLIENT_END, NAMESPACE, SERVER_END, SERVER_UNIT, Fault
from tests.vm.machine import VirtualMachine

SERVER = "10.99.0.2"

#: A tree that anyone may write to, one for SMB_USER only, and one on a file system of its own.
PUBLIC_SHARE, PRIVATE_SHARE, SMALL_SHARE = "share", "private", "small"
SMALL_SIZE_MB = 16
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
[{SMALL_SHARE}]
path = /srv/{SMALL_SHARE}
guest ok = yes
force user = {SMB_USER}
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
ip link add {CLIENT_END} mtu 65535 type veth peer name {SERVER_END} mtu 65535 netns {NAMESPACE}
ip addr add 10.99.0.1/24 dev {CLIENT_END}
ip link set {CLIENT_END} up
ip -n {NAMESPACE} addr add {SERVER}/24 dev {SERVER_END}
ip -n {NAMESPACE} link set {SERVER_END} up
ip -n {NAMESPACE} link set lo up
useradd --no-create-home {SMB_USER}
install -d -o {SMB_USER} -m 0755 /srv/{PUBLIC_SHARE} /srv/{PRIVATE_SHARE}
mkdir /srv/{SMALL_SHARE}
mount -t tmpfs -o size={SMALL_SIZE_MB}m,mode=0755 small /srv/{SMALL_SHARE}
chown {SMB_USER} /srv/{SMALL_SHARE}
cat > /etc/samba/smb.conf <<'END'
{_SMB_CONF}
END
cat > /etc/systemd/system/{SERVER_UNIT} <<'END'
{_UNIT_FILE}
END
printf '%s\\n%s\\n' {SMB_PASSWORD} {SMB_PASSWORD} | smbpasswd -s -a {SMB_USER}
umask 077
printf 'username=%s\\npassword=%s\\n' {SMB_USER} {SMB_PASSWORD} > {CREDENTIALS_FILE}
systemctl daemon-reload
systemctl start {SERVER_UNIT}
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
        """Mount the private share as SMB_USER, another one as guest."""
        who = f"credentials={CREDENTIALS_FILE}" if share == PRIVATE_SHARE else "guest"
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
    def fault(self, fault: Fault) -> Iterator[None]:
        """The fault is there while the block runs."""
        self._vm.run(fault.begin)
        try:
            yield
        finally:
            self._vm.run(fault.end)

    def server_delay(self, milliseconds: int) -> AbstractContextManager[None]:
        """Every packet of the server leaves that much later."""
        return self.fault(faults.delay(milliseconds))

    def dropped_connection(self) -> AbstractContextManager[None]:
        """Nothing that the server sends arrives; the client is told nothing either."""
        return self.fault(faults.server_link("loss", "100%"))

    def server_hang(self) -> AbstractContextManager[None]:
        """The server's processes are stopped: connections stay, replies do not come."""
        return self.fault(faults.server_stopped())

    def server_killed(self) -> AbstractContextManager[None]:
        """The server dies and its connections with it; afterwards a new one is there."""
        return self.fault(faults.server_killed())

    def permission_denied(
        self, path: str, share: str = PUBLIC_SHARE
    ) -> AbstractContextManager[None]:
        """The server may no longer open the file or directory: EACCES at the client."""
        return self.fault(faults.permission_lost(self.server_path(path, share), SMB_USER))
