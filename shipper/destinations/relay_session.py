"""ssh and rsync as the client of a relay starts them: no prompt, no agent, no secret in argv."""

from __future__ import annotations

import math
import os
import select
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from agent.children import Streams, signal_group, start_child
from agent.service.stop_signal import StopSignal
from shipper.configuration.schema import RelayDestination
from shipper.destinations.relay_faults import (
    IDENTITY_REMEDY,
    NO_IDENTITY,
    fault_of,
    fault_of_refusal,
    find_answer,
    no_relay,
)
from shipper.faults import HostFault, NetworkFault

# Stands for the host in ssh's arguments: an address with colons in it would confuse rsync.
_ALIAS = "relay"
_MAX_OUTPUT = 1 << 20
_SSH_FAILED = 255
# rsync's own timeout never comes while the relay says a word now and then, as one does whose disk
# hangs. A slow upload goes on where it was ended.
_LONGEST_PUSH_SEC = 3600.0


@dataclass(frozen=True)
class _Ended:
    status: int
    output: str
    errors: str


class RelaySession:
    """Connections to one relay, each in a child that ends with ``stop`` and with the caller.

    ``bytes_per_second`` limits each upload; 0 does not. Safe for many threads.
    """

    def __init__(self, config: RelayDestination, stop: StopSignal, bytes_per_second: float) -> None:
        self._config = config
        self._stop = stop
        self._bytes_per_second = bytes_per_second

    def push(self, archive: Path) -> None:
        """Put ``archive`` into the relay's `incoming`, going on where a former push ended.

        Raises the Fault that is in the way.
        """
        seconds = math.ceil(self._config.read_timeout_sec)
        argv = ["rsync", "--append-verify", f"--timeout={seconds}", "--no-motd"]
        if self._bytes_per_second:
            argv.append(f"--bwlimit={max(1, int(self._bytes_per_second / 1024))}")
        argv += ["--rsh", " ".join(map(_quoted, self._ssh())), "--", str(archive)]
        ended = self._run([*argv, f"{_ALIAS}::incoming/"], b"", _LONGEST_PUSH_SEC)
        if ended.status != 0:
            answer = find_answer(ended.errors)
            raise fault_of_refusal(answer) if answer else fault_of(ended.errors)

    def ask(self, command: str, document: bytes, patience_sec: float) -> dict[str, Any]:
        """The relay's answer to ``command``, which may be a refusal; ``document`` is its input.

        Raises Fault when there is no answer within ``patience_sec`` beyond the time to connect.
        """
        patience = self._config.connect_timeout_sec + patience_sec
        ended = self._run([*self._ssh(), _ALIAS, command], document, patience)
        answer = find_answer(ended.output)
        if answer is not None:
            return answer
        if ended.status == _SSH_FAILED or ended.errors:
            raise fault_of(ended.errors)
        raise no_relay(ended.output)

    def _ssh(self) -> list[str]:
        """All but the host and the command."""
        config = self._config
        options = {
            "BatchMode": "yes",
            "CheckHostIP": "no",
            "ConnectTimeout": math.ceil(config.connect_timeout_sec),
            "GlobalKnownHostsFile": "/dev/null",
            "HostName": config.host,
            "IdentitiesOnly": "yes",
            "IdentityAgent": "none",
            "IdentityFile": _option_path(config.identity_file),
            "LogLevel": "ERROR",
            "PreferredAuthentications": "publickey",
            "ServerAliveCountMax": 3,
            "ServerAliveInterval": max(1, round(config.read_timeout_sec / 3)),
            "StrictHostKeyChecking": "yes",
            "UpdateHostKeys": "no",
            "UserKnownHostsFile": _option_path(config.known_hosts_file),
        }
        argv = ["ssh", "-F", "/dev/null", "-T", "-a", "-x", "-l", config.user]
        argv += ["-p", str(config.port)]
        return argv + [f"-o{name}={value}" for name, value in options.items()]

    def _run(self, argv: list[str], document: bytes, patience_sec: float) -> _Ended:
        self._look_at_this_host(argv[0])
        with _memory() as source, _memory() as output, _memory() as errors:
            source.write(document)
            source.seek(0)
            try:
                child = start_child(argv, Streams(output, errors, source), _MAX_OUTPUT)
            except OSError as error:
                raise HostFault(
                    f"{argv[0]} cannot be started: {error.strerror}", "look at this host's limits"
                ) from error
            try:
                self._wait(child, patience_sec)
            except BaseException:
                signal_group(child, signal.SIGKILL)
                child.wait()
                raise
            return _Ended(child.wait(), _text(output), _text(errors))

    def _look_at_this_host(self, program: str) -> None:
        """Raises HostFault for what ssh and rsync would not say, or say badly."""
        for name in ("ssh", program):
            if shutil.which(name) is None:
                raise HostFault(f"there is no program {name} here", f"install {name}")
        try:
            self._config.identity_file.open("rb").close()
        except OSError as error:
            raise HostFault(f"{NO_IDENTITY}: {error}", IDENTITY_REMEDY) from error

    def _wait(self, child: subprocess.Popen[bytes], patience_sec: float) -> None:
        """Until the child has ended; it is still to be waited for then. Raises NetworkFault."""
        descriptor = os.pidfd_open(child.pid)
        try:
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            poll.register(self._stop.fd, select.POLLIN)
            ready = dict(poll.poll(patience_sec * 1000))
        finally:
            os.close(descriptor)
        if descriptor in ready:
            return
        if ready:
            raise NetworkFault("the shipper was told to stop", "the next start goes on from here")
        raise NetworkFault(
            "the relay does not answer in time",
            "look at the central host's load and its disk, and at the network",
        )


def _option_path(path: Path) -> str:
    """``path`` as the value of an option of ssh, which expands % and splits at blanks."""
    text = str(path)
    if set(text) & set("\"'\\\n"):
        raise HostFault(f"{text!a} cannot be told to ssh", "use a path without quotes")
    return '"' + text.replace("%", "%%") + '"'


def _quoted(argument: str) -> str:
    """For rsync, which takes --rsh apart at blanks that are not in quotes; no shell sees it."""
    return f"'{argument}'"


@contextmanager
def _memory() -> Iterator[IO[bytes]]:
    with os.fdopen(os.memfd_create("relay"), "w+b", buffering=0) as file:
        yield file


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")
