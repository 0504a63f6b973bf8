"""A real SMB server beside the client, in the same guest, and the faults to put between them.

smbd runs in a network namespace of its own behind a veth pair. The faults sit on the server's
end only: a delay is paid once per command, and nothing else in the guest feels it.

    client 10.99.0.1 (smb-client) ──── (smb-server) 10.99.0.2 smbd
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from tests.vm import faults, smb_server
from tests.vm.faults import CLIENT_END, NAMESPACE, SERVER_END, Fault
from tests.vm.machine import VirtualMachine
from tests.vm.smb_server import MOUNT_OPTIONS, PUBLIC_SHARE, SMB_USER

SERVER = "10.99.0.2"

# A large MTU: replies and writes then leave as one packet, and a delay is paid once.
_SET_UP = f"""
ip netns add {NAMESPACE}
ip link add {CLIENT_END} mtu 65535 type veth peer name {SERVER_END} mtu 65535 netns {NAMESPACE}
ip addr add 10.99.0.1/24 dev {CLIENT_END}
ip link set {CLIENT_END} up
ip -n {NAMESPACE} addr add {SERVER}/24 dev {SERVER_END}
ip -n {NAMESPACE} link set {SERVER_END} up
ip -n {NAMESPACE} link set lo up
"""


class SmbShare:
    """The server and its mounts. The fault methods are context managers that also undo."""

    def __init__(self, vm: VirtualMachine) -> None:
        self._vm = vm

    def set_up(self) -> None:
        """Configure and start the server. Once per machine."""
        self._vm.run(_SET_UP)
        smb_server.serve(self._vm, f"NetworkNamespacePath=/run/netns/{NAMESPACE}")
        self._vm.run(["modprobe", "cifs"])

    def mount(
        self, mount_point: str, share: str = PUBLIC_SHARE, options: str = MOUNT_OPTIONS
    ) -> None:
        """Mount the private share as SMB_USER, another one as guest."""
        smb_server.mount(self._vm, SERVER, mount_point, share, options)

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
