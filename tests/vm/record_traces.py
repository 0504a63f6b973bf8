"""Records tests/data anew: ``python -m tests.vm.record_traces`` (boots the virtual machine)."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from tests.vm.image import image_for
from tests.vm.install import install
from tests.vm.machine import VirtualMachine
from tests.vm.service import COMMAND
from tests.vm.smb_share import SmbShare

MOUNT_POINT = "/mnt/share"
DATA = Path(__file__).parents[1] / "data"
NORMAL = f"""
cd {MOUNT_POINT}
for i in 1 2 3 4 5 6; do
    dd if=/dev/zero of=work bs=16k count=8 status=none; cp work copy; cmp work copy
    mkdir -p dir; ls -l . dir; stat work; mv copy dir; rm -r dir; cat missing || true
done >/dev/null 2>&1
"""
PARALLEL = f"""
cd {MOUNT_POINT}
for i in 1 2 3 4 5 6; do dd if=/dev/zero of=slow$i bs=4k count=3 oflag=direct status=none & done
wait
"""
DENIED = f"for i in $(seq 15); do cat {MOUNT_POINT}/locked/file || true; done >/dev/null 2>&1"


def main() -> None:
    """Three traces: quiet work, the same with a slow phase, the same with refusals."""
    DATA.mkdir(exist_ok=True)
    with VirtualMachine(image_for(os.environ.get("AOD_VM_KERNEL", "6.1"))) as vm:
        share = SmbShare(vm)
        share.set_up()
        share.mount(MOUNT_POINT)
        install(vm)
        vm.run(f"mkdir -p {MOUNT_POINT}/locked; echo x > {MOUNT_POINT}/locked/file")
        record(vm, "quiet", nullcontext, NORMAL)
        record(vm, "slow", lambda: share.server_delay(700), PARALLEL)
        record(vm, "errors", lambda: share.permission_denied("locked"), DENIED)


def record(
    vm: VirtualMachine, name: str, fault: Callable[[], AbstractContextManager[None]], work: str
) -> None:
    """Normal work, ``work`` under ``fault``, normal work again, as one trace."""
    remote = f"/root/{name}.trace"
    vm.run(
        f"systemd-run --quiet --unit=record-{name} --property=KillSignal=SIGINT "
        f"{COMMAND} record {shlex.quote(remote)}"
    )
    vm.wait_until(f"journalctl -u record-{name} | grep -q recording", timeout=120)
    vm.run(NORMAL, timeout=300)
    with fault():
        vm.run(work, timeout=300)
    vm.run(NORMAL, timeout=300)
    vm.run(["systemctl", "stop", f"record-{name}"])
    vm.wait_until(["test", "-s", remote], timeout=60)
    vm.get(remote, DATA / f"{name}.trace")
    print(f"{DATA / name}.trace: {(DATA / f'{name}.trace').stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
