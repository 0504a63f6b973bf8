"""A booted guest to run commands in."""

import shlex
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

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

#: Run a script strictly; --norc because bash under ssh would read its interactive start file.
STRICT_BASH = ("bash", "--norc", "-euo", "pipefail", "-c")

#: The kernel ends the child when its parent dies, whatever the parent dies of.
DIE_WITH_PARENT = ("setpriv", "--pdeathsig", "KILL")


class MachineError(Exception):
    """The guest did not boot, or not become what was asked; the message says what was seen."""


class GuestCommandError(Exception):
    """A command in the guest failed; the message holds its status and its output."""

    def __init__(self, done: "subprocess.CompletedProcess[str]") -> None:
        command = done.args if isinstance(done.args, str) else shlex.join(done.args)
        super().__init__(
            f"{command}\nexited with {done.returncode}\n"
            f"--- stdout\n{done.stdout}\n--- stderr\n{done.stderr}"
        )
        self.done = done


class VirtualMachine:
    """One QEMU guest on a disk of its own over the image's: it starts clean every time.

    A context manager: entering returns once the guest's services are up. Commands are
    either an argv list or a bash script (run with -euo pipefail), executed as root. Enter it
    on a thread that outlives it: the guest is killed with the thread that started it.
    `ssh_port` of the host's loopback is the guest's sshd, which takes `ssh_key`. ``devices`` are
    further arguments for QEMU.
    """

    def __init__(
        self, image: Image, memory_mb: int = 2048, cpus: int = 2, devices: Sequence[str] = ()
    ) -> None:
        self.ssh_key = image.ssh_key
        self.ssh_port = _free_port()
        self._kernel, self._initrd = image.kernel, image.initrd
        self._backing_disk = image.disk
        self._hardware = ["-m", str(memory_mb), "-smp", str(cpus), *devices]
        self._directory = Path(tempfile.mkdtemp(prefix="aod-vm-"))
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

    def run(
        self,
        command: list[str] | str,
        *,
        check: bool = True,
        timeout: float = 120,
        input_text: str = "",
    ) -> "subprocess.CompletedProcess[str]":
        """Run to the end. Raises GuestCommandError when check is set and the status not 0,
        and subprocess.TimeoutExpired (the guest's process may then still be running)."""
        done = subprocess.run(
            self._ssh(command),
            input=input_text,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
        )
        done.args = command
        if check and done.returncode:
            raise GuestCommandError(done)
        return done

    def start(self, command: list[str] | str) -> "subprocess.Popen[str]":
        """Run in the background. Killing the returned process ends the connection to the
        command, not always the command: let it end by itself."""
        return subprocess.Popen(
            self._ssh(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )

    def wait_until(self, command: list[str] | str, timeout: float = 60) -> str:
        """Repeat the command until it exits with 0, and return its output."""
        deadline = time.monotonic() + timeout
        while True:
            done = self.run(command, check=False, timeout=timeout)
            if done.returncode == 0:
                return done.stdout
            if time.monotonic() > deadline:
                raise MachineError(f"not within {timeout} s: {GuestCommandError(done)}")
            time.sleep(0.2)

    def put(self, local: Path, remote: str) -> None:
        """Copy a file or a directory tree into the guest, as scp -r does."""
        self._copy(str(local), f"root@127.0.0.1:{remote}")

    def write(self, remote: str, text: str, mode: int = 0o640, group: str = "root") -> None:
        """Make a file of root's in the guest; the text never shows in a command line."""
        target = ["-m", f"{mode:04o}", "-g", group, "/dev/stdin", remote]
        self.run(["install", *target], input_text=text)

    def get(self, remote: str, local: Path) -> None:
        """Copy a file or a directory tree out of the guest, as scp -r does."""
        self._copy(f"root@127.0.0.1:{remote}", str(local))

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
        self._open_ssh_master()

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

    def _open_ssh_master(self) -> None:
        """One connection that all later commands share: a new one costs half a second."""
        with (self._directory / "ssh.log").open("wb") as log:
            master = subprocess.Popen(
                [*DIE_WITH_PARENT, "ssh", *self._ssh_options(), "-MN", "root@127.0.0.1"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._children.append(master)
        deadline = time.monotonic() + 60
        while not (self._directory / "ssh").exists():
            if master.poll() is not None or time.monotonic() > deadline:
                log_text = (self._directory / "ssh.log").read_text(errors="replace")
                raise MachineError(f"no lasting ssh connection: {log_text}{self._last_words()}")
            time.sleep(0.05)

    def _ssh_options(self) -> list[str]:
        options = {
            "BatchMode": "yes",
            "ConnectTimeout": "10",
            "ControlPath": self._directory / "ssh",
            "IdentitiesOnly": "yes",
            "IdentityFile": self.ssh_key,
            "LogLevel": "ERROR",
            "Port": self.ssh_port,
            "StrictHostKeyChecking": "no",
            "UserKnownHostsFile": "/dev/null",
        }
        return ["-F", "/dev/null", *(f"-o{name}={value}" for name, value in options.items())]

    def _ssh(self, command: list[str] | str) -> list[str]:
        if isinstance(command, str):
            command = [*STRICT_BASH, command]
        return ["ssh", *self._ssh_options(), "root@127.0.0.1", shlex.join(command)]

    def _copy(self, source: str, target: str) -> None:
        done = subprocess.run(
            ["scp", "-rp", *self._ssh_options(), source, target],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        if done.returncode:
            raise GuestCommandError(done)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
