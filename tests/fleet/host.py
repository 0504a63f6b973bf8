"""One host of a fleet: a container with a booted systemd, reached over ssh on loopback."""

from __future__ import annotations

import shlex
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType

from tests.fleet.host_image import HostImage

BOOT_TIMEOUT_S = 120
# What the container's own systemd lets the agent's unit have.
CAPABILITIES = "CAP_BPF,CAP_PERFMON,CAP_SYSLOG,CAP_SYS_RESOURCE"
_CONTROL_GROUPS = tuple(
    directory
    for directory in map(
        Path, ("/sys/fs/cgroup", "/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified")
    )
    if (directory / "cgroup.procs").exists()
)
# One of its own for each: two systemds in one control group would end each other's services.
_IN_OWN_CONTROL_GROUP = f"""
for hierarchy in {" ".join(map(str, _CONTROL_GROUPS))}; do
    mkdir "$hierarchy/$1" && echo $$ > "$hierarchy/$1/cgroup.procs"
done
shift
exec "$@"
"""


class HostError(Exception):
    """The host did not boot, or a command on it failed; the message says what was seen."""


class FleetHost:
    """Boots from the image with a volatile overlay: it starts clean every time.

    A context manager; inside, `run` executes as root, and `port` of 127.0.0.1 is its sshd. It
    shares this machine's network, so that what listens here on loopback is there, too.
    """

    def __init__(self, image: HostImage, name: str) -> None:
        self.name = name
        self.port = _free_port()
        self.ssh_key = image.ssh_key
        self._image = image
        self._directory = Path(tempfile.mkdtemp(prefix=f"aod-{name}-"))
        self._machine: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> FleetHost:
        try:
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
        self, command: list[str] | str, *, check: bool = True, timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """An argv list or a bash script (-euo pipefail). Raises HostError when it fails."""
        if isinstance(command, str):
            command = ["bash", "--norc", "-euo", "pipefail", "-c", command]
        done = subprocess.run(
            [*self._ssh(), shlex.join(command)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
        )
        if check and done.returncode:
            raise HostError(f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    def variables(self) -> dict[str, object]:
        """What an inventory says of it."""
        return {
            "ansible_host": "127.0.0.1",
            "ansible_port": self.port,
            "ansible_user": "root",
            "ansible_ssh_private_key_file": str(self.ssh_key),
            "ansible_ssh_common_args": " ".join(_SSH_OPTIONS),
        }

    def console(self) -> str:
        return (self._directory / "console.log").read_text(errors="replace")

    def stop(self) -> None:
        """Power off. What it wrote is gone; may be called twice."""
        if self._machine is not None:
            self._machine.send_signal(signal.SIGTERM)
            try:
                self._machine.wait(20)
            except subprocess.TimeoutExpired:
                self._machine.kill()
                self._machine.wait()
            self._machine = None
        for hierarchy in _CONTROL_GROUPS:
            _remove_control_groups(hierarchy / self._directory.name)
        for name in ("console.log", "sshd.conf"):
            (self._directory / name).unlink(missing_ok=True)
        if self._directory.exists():
            self._directory.rmdir()

    def _boot(self) -> None:
        sshd = self._directory / "sshd.conf"
        sshd.write_text(f"Port {self.port}\nListenAddress 127.0.0.1\n")
        with (self._directory / "console.log").open("wb") as console:
            self._machine = subprocess.Popen(
                self._command(sshd),
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
            )
        deadline = time.monotonic() + BOOT_TIMEOUT_S
        while self._state() not in {"running", "degraded"}:
            if self._machine.poll() is not None or time.monotonic() > deadline:
                raise HostError(f"{self.name} did not boot:\n{self.console()}")
            time.sleep(0.1)

    def _command(self, sshd: Path) -> list[str]:
        nspawn = [
            *("setpriv", "--pdeathsig", "TERM", "systemd-nspawn", "--quiet", "--boot"),
            *("--directory", str(self._image.root), "--volatile=overlay"),
            *(f"--machine={self.name}", "--console=pipe", f"--capability={CAPABILITIES}"),
            f"--bind-ro={sshd}:/etc/ssh/sshd_config.d/00-port.conf",
        ]
        if Path("/run/systemd/system").exists():
            return nspawn
        own = ["sh", "-c", _IN_OWN_CONTROL_GROUP, "sh", self._directory.name]
        return [*own, *nspawn, "--register=no", "--keep-unit"]

    def _state(self) -> str:
        return self.run(["systemctl", "is-system-running"], check=False).stdout.strip()

    def _ssh(self) -> list[str]:
        return [
            *("ssh", "-F", "/dev/null", *_SSH_OPTIONS, "-i", str(self.ssh_key)),
            *("-p", str(self.port), "root@127.0.0.1"),
        ]


_SSH_OPTIONS = (
    "-oBatchMode=yes",
    "-oConnectTimeout=10",
    "-oIdentitiesOnly=yes",
    "-oLogLevel=ERROR",
    "-oStrictHostKeyChecking=no",
    "-oUserKnownHostsFile=/dev/null",
)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _remove_control_groups(directory: Path) -> None:
    """Those that a host's systemd left empty, and the host's own."""
    for group in sorted(directory.glob("**/"), key=lambda path: -len(path.parts)):
        group.rmdir()
