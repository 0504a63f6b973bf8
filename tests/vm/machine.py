"""A booted guest to run commands in."""

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from tests.vm.guest import DIE_WITH_PARENT, Guest, MachineError
from tests.vm.image import Image

#: Where the guest finds what listens on the host's 127.0.0.1.
HOST_ADDRESS = "10.0.2.2"

BOOT_TIMEOUT_S = 600
SHUTDOWN_TIMEOUT_S = 300
# A busy host slows an emulated guest tenfold: systemd's own patience must not end the boot.
KERNEL_COMMAND_LINE = (
    "root=/dev/vda rw console=ttyS0 panic=-1 mitigations=off systemd.show_status=no "
    f"systemd.default_timeout_start_sec={BOOT_TIMEOUT_S} "
    f"systemd.default_device_timeout_sec={BOOT_TIMEOUT_S}"
)

CONSOLE_TAIL_LINES = 60


class VirtualMachine(Guest):
    """One QEMU guest on a disk of its own over the image's: it starts clean every time.

    A context manager: entering returns once the guest's services are up. Enter it on a thread
    that outlives it: the guest is killed with the thread that started it. ``devices`` are further
    arguments for QEMU.
    """

    def __init__(
        self, image: Image, memory_mb: int = 2048, cpus: int = 2, devices: Sequence[str] = ()
    ) -> None:
        directory = Path(tempfile.mkdtemp(prefix="aod-vm-"))
        super().__init__(_free_port(), image.ssh_key, directory)
        self._kernel, self._initrd = image.kernel, image.initrd
        self._backing_disk = image.disk
        self._hardware = ["-m", str(memory_mb), "-smp", str(cpus), *devices]
        self._children: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> "VirtualMachine":
        try:
            self._make_disk()
            self._boot()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def console(self) -> str:
        """Everything the guest wrote on its console so far, its journal included."""
        log = self._directory / "console.log"
        return log.read_text(errors="replace") if log.exists() else ""

    def console_tail(self) -> str:
        return "\n".join(self.console().splitlines()[-CONSOLE_TAIL_LINES:])

    def reboot(self) -> None:
        """Shut down cleanly and boot the kernel that the guest has as its default by now.

        Returns once the services are up again. That kernel is what `/vmlinuz` and `/initrd.img`
        lead to, which Debian keeps: the host boots it, so it is fetched out of the guest before.
        """
        for link, path in (("/vmlinuz", "vmlinuz"), ("/initrd.img", "initrd.img")):
            self.get(link, self._directory / path)
        self._kernel, self._initrd = self._directory / "vmlinuz", self._directory / "initrd.img"
        qemu, master = self._children
        self.run(["systemctl", "--no-block", "reboot"])
        try:
            qemu.wait(SHUTDOWN_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise MachineError(f"the guest did not shut down{self._last_words()}") from None
        master.wait()
        self._children.clear()
        self._boot()

    def stop(self) -> None:
        """Pull the plug. What the guest wrote is gone; may be called twice."""
        for child in reversed(self._children):
            child.kill()
            child.wait()
        self._children.clear()
        shutil.rmtree(self._directory, ignore_errors=True)

    def _make_disk(self) -> None:
        backing = ["-b", str(self._backing_disk), "-F", "raw"]
        command = ["qemu-img", "create", "-q", "-f", "qcow2", *backing, str(self._disk)]
        subprocess.run(command, stdin=subprocess.DEVNULL, check=True, timeout=60)

    @property
    def _disk(self) -> Path:
        return self._directory / "disk.qcow2"

    def _boot(self) -> None:
        with (self._directory / "qemu.log").open("wb") as log:
            qemu = subprocess.Popen(
                [*DIE_WITH_PARENT, *self._qemu_command()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._children.append(qemu)
        self._wait_for_services(qemu)
        self._children.append(self.open_master())

    def _qemu_command(self) -> list[str]:
        return [
            "qemu-system-x86_64",
            *("-accel", "tcg,thread=multi", "-cpu", "max"),
            *("-kernel", str(self._kernel), "-initrd", str(self._initrd)),
            *("-append", KERNEL_COMMAND_LINE),
            # The disk is nobody's any more when the host crashes: no write of it need be durable.
            *("-drive", f"file={self._disk},if=virtio,format=qcow2,cache=unsafe"),
            *("-netdev", f"user,id=n0,hostfwd=tcp:127.0.0.1:{self.ssh_port}-:22"),
            *("-device", "virtio-net-pci,netdev=n0"),
            *self._hardware,
            *("-display", "none", "-no-reboot"),
            *("-chardev", f"file,id=console,append=on,path={self._directory / 'console.log'}"),
            *("-serial", "chardev:console"),
        ]

    def _wait_for_services(self, qemu: "subprocess.Popen[bytes]") -> None:
        deadline = time.monotonic() + BOOT_TIMEOUT_S
        while time.monotonic() < deadline:
            if qemu.poll() is not None:
                log = (self._directory / "qemu.log").read_text(errors="replace")
                raise MachineError(f"QEMU ended with {qemu.returncode}:\n{log}{self._last_words()}")
            state = self._system_state()
            if state in {"running", "degraded"}:
                return
            time.sleep(0.2)
        raise MachineError(f"the guest did not boot in {BOOT_TIMEOUT_S} s{self._last_words()}")

    def _system_state(self) -> str:
        try:
            asked = self.run(
                ["systemctl", "is-system-running", "--wait"], check=False, timeout=BOOT_TIMEOUT_S
            )
        except subprocess.TimeoutExpired:
            return "unknown"
        return asked.stdout.strip()

    def _last_words(self) -> str:
        return f"\n--- the guest's console\n{self.console_tail()}"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
