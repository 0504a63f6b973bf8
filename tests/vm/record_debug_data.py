"""Records tests/data/debug_data anew: ``python -m tests.vm.record_debug_data [kernel ...]``."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager
from pathlib import Path

from tests.vm.faults import NAMESPACE, SERVER_UNIT
from tests.vm.image import image_for
from tests.vm.machine import VirtualMachine
from tests.vm.smb_server import MOUNT_OPTIONS, PRIVATE_SHARE
from tests.vm.smb_share import SmbShare

DATA = Path(__file__).parents[1] / "data" / "debug_data"
KERNELS = ("6.1", "6.12")
PUBLIC, PRIVATE, SUBDIRECTORY, ODD = "/mnt/share", "/mnt/private", "/mnt/other place", "/mnt/odd"
ODD_SHARE = "Odd Mounts: 3 näme#1"

# Three processes that have their files open before a fault, and write when they are told.
_WRITERS = """
import os, sys, time
files = [os.open(f"{sys.argv[1]}/{number}", os.O_CREAT | os.O_WRONLY) for number in range(3)]
for file in files:
    if os.fork() == 0:
        while not os.path.exists("/run/write"):
            time.sleep(0.1)
        os.write(file, b"x" * 4096)
        os._exit(0)
open("/run/writers-ready", "w").close()
for _ in files:
    os.wait()
"""
_THREE_WRITES = "test $(grep -o 'com: 9 .* mid .*' /proc/fs/cifs/DebugData | sort -u | wc -l) = 3"
_DISCONNECTED = "grep -q DISCONNECTED /proc/fs/cifs/DebugData"
_TEXTS = {"/proc/fs/cifs/DebugData": "debug_data", "/proc/1/mountinfo": "mountinfo"}
_ADD_SECOND_SERVER = f"""
ip -n {NAMESPACE} addr add 10.99.0.3/24 dev smb-server
echo 10.99.0.3 fileserver.example >> /etc/hosts
install -d -o alice '/srv/odd name' /srv/share/sub /srv/share/sub/dir
cat >> /etc/samba/smb.conf <<'END'
[{ODD_SHARE}]
path = /srv/odd name
guest ok = yes
force user = alice
read only = no
END
systemctl restart {SERVER_UNIT}
"""


class Recorder:
    """The scenes of one kernel, each recorded as two texts."""

    def __init__(self, vm: VirtualMachine, directory: Path) -> None:
        self._vm = vm
        self._share = SmbShare(vm)
        self._directory = directory

    def record_all(self) -> None:
        """Record every scene; later ones need the earlier ones' mounts."""
        self._share.set_up()
        self._record("no_mounts")
        self._share.mount(PUBLIC)
        self._share.mount(PRIVATE, PRIVATE_SHARE)
        self._record("idle")
        self._record_writes("hang", PUBLIC, self._share.server_hang(), _THREE_WRITES)
        self._record_writes("killed", PUBLIC, self._share.server_killed(), _DISCONNECTED)
        self._record_two_servers()
        self._record_channels()

    def _record_two_servers(self) -> None:
        self._vm.run(_ADD_SECOND_SERVER)
        self._vm.wait_until(["touch", f"{PUBLIC}/well", f"{PRIVATE}/well"])
        for path, place in (("share/sub/dir", SUBDIRECTORY), (ODD_SHARE, ODD)):
            self._vm.run(["mkdir", "-p", place])
            mount = ["mount", "-t", "cifs", f"//fileserver.example/{path}", place]
            self._vm.run([*mount, "-o", f"guest,{MOUNT_OPTIONS}"])
        self._record("two_servers")

    def _record_channels(self) -> None:
        for place in (PUBLIC, PRIVATE):
            self._share.unmount(place)
        self._vm.run(
            "sed -i '/global/a server multi channel support = yes' /etc/samba/smb.conf; "
            f"systemctl restart {SERVER_UNIT}"
        )
        options = f"{MOUNT_OPTIONS},multichannel,max_channels=2"
        self._share.mount(PRIVATE, PRIVATE_SHARE, options)
        self._vm.wait_until("grep -q Channel: /proc/fs/cifs/DebugData")
        self._record_writes("channels", PRIVATE, self._share.server_hang(), _THREE_WRITES)

    def _record_writes(
        self, scene: str, directory: str, fault: AbstractContextManager[None], shown: str
    ) -> None:
        """Record while three writes wait under ``fault``, once DebugData has what is ``shown``."""
        self._vm.run("rm -f /run/write /run/writers-ready")
        self._vm.run(["systemd-run", "--unit=writers", "python3", "-c", _WRITERS, directory])
        self._vm.wait_until("test -e /run/writers-ready")
        with fault:
            self._vm.run("touch /run/write")
            self._vm.wait_until(shown)
            self._record(scene)
        self._vm.wait_until("! systemctl --quiet is-active writers", timeout=120)

    def _record(self, scene: str) -> None:
        for path, kind in _TEXTS.items():
            text = self._vm.run(["cat", path]).stdout
            (self._directory / f"{scene}.{kind}").write_text(text)


def main() -> None:
    """Every scene of the kernels named, or of them all."""
    for kernel in sys.argv[1:] or KERNELS:
        directory = DATA / kernel
        directory.mkdir(parents=True, exist_ok=True)
        with VirtualMachine(image_for(kernel)) as vm:
            Recorder(vm, directory).record_all()
        print(f"{directory}: {len(list(directory.iterdir()))} texts")


if __name__ == "__main__":
    main()
