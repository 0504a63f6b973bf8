"""A host of the relay with bad manners, and a victim beside it; see test_relay_attacks.py."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from agent.service.stop_signal import StopSignal
from agent.storage.spool import ARCHIVE
from agent.storage.ulid import is_ulid, new_ulid
from shipper.destinations.delivery import Delivery
from shipper.destinations.relay_destination import RelayInbox
from shipper.destinations.relay_session import RelaySession
from shipper.relay.limits import Limits
from tests.relay_server import AOD_GID, RELAY_UID, ROOMY, RelayServer
from tests.shipper_support import add_bundle, delivery_of, new_spool

ID = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
OWN_FILES = {"incoming", "batches", "heartbeat.json", "accepted", "rsyncd.conf"}

# Starts what it is told to, as rsync's remote shell, and takes one option out of those that the
# client sends to the server: as a client does that was made for it.
_FORGER = """
import os, subprocess, sys, threading
option, argv = sys.argv[1].encode(), sys.argv[2:]
server = subprocess.Popen(argv, stdin=subprocess.PIPE)
greeting = options = b""
while greeting.count(b"\\n") < 2:
    greeting += os.read(0, 1)
os.write(server.stdin.fileno(), greeting)
while not options.endswith(b"\\0\\0"):
    options += os.read(0, 1)
assert option in options, options
os.write(server.stdin.fileno(), options.replace(option, b"-"))
def forward():
    while data := os.read(0, 1 << 16):
        os.write(server.stdin.fileno(), data)
threading.Thread(target=forward, daemon=True).start()
os._exit(server.wait())
"""

State = dict[Path, tuple[int, int, int, bytes]]


class Attacker:
    """Its key was let in; it has an accepted bundle, ``own``. The victim has one too, ``theirs``,
    and a part of another. What it makes here lies in ``directory``."""

    def __init__(self, relay: RelayServer, directory: Path, limits: Limits = ROOMY) -> None:
        number = secrets.token_hex(4)
        self.relay = relay
        self.directory = directory
        self.name, self.victim = f"attacker-{number}", f"victim-{number}"
        config = relay.config(relay.authorize(self.name, limits))
        self.ssh_argv = RelaySession(config, StopSignal(), 0)._ssh()
        self.client = RelayInbox(config, StopSignal())
        victims = relay.config(relay.authorize(self.victim))
        self.victim_client = RelayInbox(victims, StopSignal())
        self._spool = new_spool(directory / self.name)
        self.folder, self.victims_folder = relay.inbox / self.name, relay.inbox / self.victim
        self.own, self.theirs = self.bundle(), self.bundle(b"the victim's")
        self.client.deliver(self.own)
        self.victim_client.deliver(self.theirs)
        part = self.victims_folder / "incoming" / f"{new_ulid()}{ARCHIVE}"
        part.write_bytes(b"a part of the victim's")
        os.chown(part, RELAY_UID, AOD_GID)
        self.before = self.state()

    def start_over(self, directory: Path) -> None:
        """For the next attack."""
        self.directory = directory
        for path in (self.folder / "incoming").iterdir():
            path.unlink()
        self.before = self.state()

    def state(self) -> State:
        """All that must not change: names, inodes, times, modes and contents."""
        state = {}
        for root in (self.victims_folder, self.folder / "batches"):
            for path in sorted(root.rglob("*")):
                status = path.lstat()
                content = path.read_bytes() if path.is_file() else b""
                state[path] = status.st_ino, status.st_mtime_ns, status.st_mode, content
        return state

    def check(self) -> None:
        """Nothing changed, and nothing but parts of archives came in."""
        assert self.state() == self.before
        for name in self.incoming():
            assert is_ulid(name.removesuffix(ARCHIVE)), name
            assert (self.folder / "incoming" / name).lstat().st_nlink == 1
        assert {path.name for path in self.folder.iterdir()} <= OWN_FILES

    def bundle(self, content: bytes = b"evidence") -> Delivery:
        return delivery_of(add_bundle(self._spool, content))

    def file(self, name: str = f"{ID}{ARCHIVE}", content: bytes = b"evil") -> Path:
        path = self.directory / name
        path.write_bytes(content)
        return path

    def incoming(self) -> list[str]:
        return sorted(path.name for path in (self.folder / "incoming").iterdir())

    def ssh(self, *command: str, options: tuple[str, ...] = (), data: bytes = b"") -> Said:
        return self.run([*self.ssh_argv, *options, "relay", *command], data)

    def rsync(self, *arguments: str | Path) -> Said:
        rsh = " ".join(f"'{one}'" for one in self.ssh_argv)
        return self.run(["rsync", "--rsh", rsh, *map(str, arguments)])

    def rsync_that_hides(self, option: str, *arguments: str | Path) -> Said:
        """As `rsync`, but the beginning ``option`` of its options is not sent."""
        forger = self.file("forger", _FORGER.encode())
        rsh = [sys.executable, str(forger), option, *self.ssh_argv]
        return self.run(
            ["rsync", "--rsh", " ".join(f"'{one}'" for one in rsh), *map(str, arguments)]
        )

    def copy(self, program: str, *arguments: str | Path, data: bytes = b"") -> Said:
        """scp or sftp, with the attacker's key; the relay is `aod-relay@relay`."""
        options = [one for one in self.ssh_argv if one.startswith("-o")]
        port = ["-F", "/dev/null", "-P", str(self.relay.port)]
        return self.run([program, *port, *options, *map(str, arguments)], data)

    def run(self, argv: list[str], data: bytes = b"") -> Said:
        assert shutil.which(argv[0])
        return Said(
            subprocess.run(
                argv, input=data, capture_output=True, cwd=self.directory, check=False, timeout=120
            )
        )


class Said:
    """How a client ended, and what it was told."""

    def __init__(self, ended: subprocess.CompletedProcess[bytes]) -> None:
        self.status = ended.returncode
        self.output = ended.stdout.decode(errors="replace")
        self.errors = ended.stderr.decode(errors="replace")

    @property
    def refusal(self) -> Any:
        """The relay's line; an rsync finds it on standard error."""
        return json.loads(self.output or self.errors)

    def assert_denied(self) -> None:
        assert self.status == 1, (self.output, self.errors)
        assert (self.refusal["kind"], bool(self.refusal["remedy"])) == ("denied", True)
