"""A central host for tests: a real sshd on loopback, and the relay's user apart from the test's.

sshd runs in a mount namespace with an /etc/passwd, an /opt and an inbox of its own, so that the
users ``aod-relay`` and ``aod-shipper`` exist for it alone, and nothing is left on the machine.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

from shipper.configuration.schema import RelayDestination
from shipper.relay.authorized_key import authorized_line, read_public_key
from shipper.relay.limits import Limits
from tests.minio_server import free_port
from tests.shipper_support import wait_for

CHECKOUT = Path(__file__).parents[1]
RELAY_UID, SHIPPER_UID, AOD_GID = 64_101, 64_102, 64_100
USER = "aod-relay"
PROGRAM = Path("/opt/aod/current/bin/aod-relay")
INBOX = Path("/opt/aod/inbox")
AUTHORIZED_KEYS = Path("/opt/authorized_keys")
ROOMY = Limits(min_free_mb=0)

_DIE_WITH_TEST = ("setpriv", "--pdeathsig", "KILL")
# Arguments: the directory that becomes /opt, the checkout, passwd, group, sshd and its options.
_NAMESPACE = """
mount --bind "$1" /opt
mount --bind "$2" /opt/checkout
mount --bind "$3" /etc/passwd
mount --bind "$4" /etc/group
mount -t tmpfs -o mode=755 tmpfs /run
mkdir /run/sshd
shift 4
exec "$@"
"""

_PROGRAM_TEXT = f"""#!{sys.base_prefix}/bin/python3 -I
import sys
sys.path.insert(0, "/opt/checkout")
sys.dont_write_bytecode = True
from shipper.relay.cli import main
sys.exit(main())
"""

_SSHD_CONFIG = """\
ListenAddress 127.0.0.1
Port {port}
HostKey {directory}/host_key
PidFile none
AuthorizedKeysFile {keys}
UsePAM no
AuthenticationMethods publickey
AcceptEnv LANG LC_*
Subsystem sftp /usr/lib/openssh/sftp-server
MaxStartups 200
LogLevel VERBOSE
"""


class RelayUnavailableError(Exception):
    """This machine cannot run the relay's sshd; the message says why."""


class RelayServer:
    """One central host below ``directory``; `inbox` is its inbox, seen from the test.

    ``sshd_lines`` come after the rest of sshd's configuration.
    """

    def __init__(self, directory: Path, sshd_lines: str = "") -> None:
        self._directory = directory
        self._sshd_lines = sshd_lines
        self.port = free_port()
        self.inbox = directory / "opt/aod/inbox"
        self.host_key = directory / "host_key.pub"
        self._keys = directory / "keys"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> RelayServer:
        self._prepare()
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start sshd; returns when it takes connections."""
        paths = [self._directory / "opt", CHECKOUT]
        paths += [self._directory / "passwd", self._directory / "group"]
        namespace = [
            "setpriv",
            "--pdeathsig",
            "KILL",
            "unshare",
            "--mount",
            "sh",
            "-ec",
            _NAMESPACE,
            "sh",
            *map(str, paths),
        ]
        sshd = [shutil.which("sshd") or "/usr/sbin/sshd", "-D", "-e"]
        with (self._directory / "sshd.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*_DIE_WITH_TEST, *namespace, *sshd, "-f", str(self._directory / "sshd_config")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait_for(self._answers, "sshd starts: " + self.log())

    def stop(self) -> None:
        """End sshd and its sessions."""
        if self._process is None:
            return
        for pid in self.session_pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.terminate()
        self._process.wait(timeout=20)
        self._process = None

    def authorize(self, host: str, limits: Limits = ROOMY) -> Path:
        """Make a key for ``host`` and let it in; the private key's file."""
        key = self.make_key(host)
        self.admit(host, key.with_suffix(".pub"), limits)
        return key

    def admit(self, host: str, public_key: Path, limits: Limits = ROOMY) -> None:
        """Let ``host`` in with the key that it has made."""
        self._append(authorized_line(read_public_key(public_key), host, INBOX, PROGRAM, limits))

    def let_in(self, key: Path, options: str) -> None:
        """Let ``key`` in with another line than `authorize` makes."""
        self._append(f"{options} {key.with_suffix('.pub').read_text().strip()}")

    def make_key(self, name: str) -> Path:
        """A key that may do nothing yet."""
        return make_key(self._keys / name)

    def config(self, key: Path, **changes: object) -> RelayDestination:
        """How a client with ``key`` reaches this host."""
        settings = {
            "host": "127.0.0.1",
            "port": self.port,
            "identity_file": key,
            "known_hosts_file": self._directory / "known_hosts",
            "connect_timeout_sec": 20.0,
        }
        return RelayDestination(**{**settings, **changes})  # type: ignore[arg-type]

    def log(self) -> str:
        """What sshd and the sessions wrote."""
        path = self._directory / "sshd.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def session_pids(self) -> list[int]:
        """Processes of this sshd's sessions: the relay's user in sshd's own mount namespace."""
        assert self._process is not None
        own = Path(f"/proc/{self._process.pid}/ns/mnt").stat().st_ino
        pids = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                mine = entry.name.isdecimal() and entry.stat().st_uid == RELAY_UID
                if mine and (entry / "ns/mnt").stat().st_ino == own:
                    pids.append(int(entry.name))
        return pids

    def _append(self, line: str) -> None:
        with (self._directory / "opt/authorized_keys").open("a") as file:
            file.write(line + "\n")

    def _answers(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise RelayUnavailableError(f"sshd does not start: {self.log()[-1000:]}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 5):
            return True
        return False

    def _prepare(self) -> None:
        binaries = self._directory / "opt/aod/current/bin"
        for directory in (binaries, self.inbox, self._directory / "opt/checkout", self._keys):
            directory.mkdir(parents=True)
        os.chown(self.inbox, RELAY_UID, AOD_GID)
        self.inbox.chmod(0o2770)
        program = binaries / "aod-relay"
        program.write_text(_PROGRAM_TEXT)
        program.chmod(0o755)
        users = [
            f"{USER}:*:{RELAY_UID}:{RELAY_UID}::/:/bin/sh",
            f"aod-shipper:*:{SHIPPER_UID}:{AOD_GID}::/nonexistent:/usr/sbin/nologin",
        ]
        self._write("passwd", Path("/etc/passwd").read_text() + "\n".join([*users, ""]))
        groups = [f"{USER}:x:{RELAY_UID}:", f"aod:x:{AOD_GID}:{USER}", ""]
        self._write("group", Path("/etc/group").read_text() + "\n".join(groups))
        self._write("opt/authorized_keys", "")
        config = _SSHD_CONFIG.format(
            port=self.port, directory=self._directory, keys=AUTHORIZED_KEYS
        )
        self._write("sshd_config", config + self._sshd_lines)
        make_key(self.host_key.with_suffix(""))
        self._write("known_hosts", f"[127.0.0.1]:{self.port} {self.host_key.read_text()}")

    def _write(self, name: str, text: str) -> None:
        path = self._directory / name
        path.write_text(text)
        path.chmod(0o644)


def why_not() -> str:
    """Why no such host can run here; empty when it can."""
    if os.geteuid() != 0:
        return "only root can give sshd users of its own"
    for program in ("setpriv", "unshare", "rsync", "ssh", "ssh-keygen"):
        if shutil.which(program) is None:
            return f"no program {program}"
    if not Path("/usr/sbin/sshd").exists():
        return "no sshd: install openssh-server"
    with contextlib.suppress(KeyError):
        return f"there is a user {pwd.getpwuid(RELAY_UID).pw_name} with the uid of the tests"
    trial = subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False)
    return "" if trial.returncode == 0 else f"no mount namespaces: {trial.stderr!r}"


def make_key(path: Path) -> Path:
    """A new key pair without passphrase; the private one's file."""
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(path)],
        check=True,
        capture_output=True,
    )
    return path
