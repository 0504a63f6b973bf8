"""A guest that answers on a port of this host's loopback: commands and files over ssh."""

import shlex
import subprocess
import time
from pathlib import Path

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


class Guest:
    """Commands are either an argv list or a bash script (run with -euo pipefail), executed as root.

    `ssh_port` of the host's loopback is the guest's sshd, which takes `ssh_key`. The connection's
    socket and its log are put into ``directory``.
    """

    def __init__(self, ssh_port: int, ssh_key: Path, directory: Path) -> None:
        self.ssh_port = ssh_port
        self.ssh_key = ssh_key
        self._directory = directory
        self._control = directory / "ssh"

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

    def open_master(self) -> "subprocess.Popen[bytes]":
        """One connection that all later commands share: a new one costs half a second.

        Returns its process, which the caller ends. Raises MachineError.
        """
        with (self._directory / "ssh.log").open("wb") as log:
            master = subprocess.Popen(
                [*DIE_WITH_PARENT, "ssh", *self._ssh_options(), "-MN", "root@127.0.0.1"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + 60
        while not self._control.exists():
            if master.poll() is not None or time.monotonic() > deadline:
                master.kill()
                log_text = (self._directory / "ssh.log").read_text(errors="replace")
                raise MachineError(f"no lasting ssh connection: {log_text}")
            time.sleep(0.05)
        return master

    def _ssh_options(self) -> list[str]:
        options = {
            "BatchMode": "yes",
            "ConnectTimeout": "10",
            "ControlPath": self._control,
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
