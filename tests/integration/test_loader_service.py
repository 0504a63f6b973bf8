"""The loader as a service: started by a connection, ended by its end."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import bpf
from agent.kernel import loader_service
from agent.kernel.hand_over import LoadStopped, ProbeFault
from agent.kernel.loader_service import ask_loader, offers_loading
from agent.kernel.probe import Probe, load_probe
from agent.kernel.rights import missing_rights
from agent.service.stop_signal import StopSignal
from tests.ebpf_host import PRCTL_LOADER, Kernel, ebpf_host, wait_until
from tests.loader_faults import open_descriptors
from tests.rights import unprivileged

__all__ = ["ebpf_host"]

REPOSITORY = Path(bpf.__file__).parents[1]
READ = 8


class LoaderService:
    """systemd's own program for trying out a service that is started by connections."""

    def __init__(self, path: Path, command: tuple[str, ...]) -> None:
        activate = ("systemd-socket-activate", "--accept", "--seqpacket", f"--listen={path}")
        self.path = path
        self._process = subprocess.Popen(
            [*activate, *command, "--service", "--socket", "3"],
            cwd=REPOSITORY,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        wait_until(path.exists, "the socket is there")

    def loaders(self) -> list[int]:
        """Processes that were started and have not ended."""
        listed = subprocess.run(
            ["ps", "--ppid", str(self._process.pid), "-o", "pid=,stat="],
            capture_output=True,
            text=True,
            check=False,
        ).stdout
        rows = (line.split() for line in listed.splitlines())
        return [int(pid) for pid, state in rows if not state.startswith("Z")]

    def close(self) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


class EndlessSource:
    """C that the compiler does not come to the end of: it includes a pipe without a writer."""

    def __init__(self, directory: Path) -> None:
        self._pipe = directory / "endless.h"
        os.mkfifo(self._pipe)
        self.path = directory / "endless.c"
        self.path.write_text(f'#include "{self._pipe}"\n')
        self._writer = -1

    @contextlib.contextmanager
    def once_read(self, act: Callable[[], None]) -> Iterator[None]:
        """Call ``act`` from another thread when a compiler is there."""

        def wait_and_act() -> None:
            wait_until(self._is_read, "the compiler works")
            act()

        thread = threading.Thread(target=wait_and_act)
        thread.start()
        yield
        thread.join()

    def _is_read(self) -> bool:
        try:
            self._writer = os.open(self._pipe, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            if error.errno != errno.ENXIO:  # nobody reads
                raise
            return False
        return True

    def close(self) -> None:
        """Not before a test is over: that is the end of the include."""
        if self._writer >= 0:
            os.close(self._writer)


@pytest.fixture
def endless(tmp_path: Path) -> Iterator[EndlessSource]:
    source = EndlessSource(tmp_path)
    yield source
    source.close()


@contextlib.contextmanager
def loader_by(directory: Path, *command: str) -> Iterator[LoaderService]:
    service = LoaderService(directory / "loader.socket", command)
    try:
        yield service
    finally:
        service.close()


def stand_in(code: str) -> tuple[str, ...]:
    """A loader made of a few lines; ``channel`` is its connection, the request is read."""
    head = (
        "import os, signal, socket, sys, time\n"
        "channel = socket.socket(fileno=3)\n"
        "_, (noise,), _, _ = socket.recv_fds(channel, 1024, 1)\n"
    )
    return (sys.executable, "-c", head + code)


def fault_of(service: LoaderService, timeout_sec: float = 60) -> ProbeFault:
    """What is said about a load that fails; no descriptor may be left of it."""
    gc.collect()
    before = open_descriptors()
    with pytest.raises(ProbeFault) as caught:
        ask_loader(256, timeout_sec, path=service.path)
    fault = caught.value
    assert open_descriptors() == before
    return fault


@pytest.mark.ebpf
@pytest.mark.usefixtures("ebpf_host")
def test_service_loads_what_was_asked_for_and_ends(tmp_path: Path) -> None:
    with loader_by(tmp_path, *PRCTL_LOADER) as service:
        probe = Probe(ask_loader(2, 60, path=service.path))
        wait_until(lambda: not service.loaders(), "the loader has gone")
        assert probe.ring_size == 2 * 4096
        kernel = Kernel(probe)
        probe.settings["slow_ns"] = 1
        kernel.run(READ)
        assert len(kernel.events()) == 1
        probe.close()


@pytest.mark.ebpf
@pytest.mark.usefixtures("ebpf_host")
def test_fault_comes_with_the_compilers_own_words(tmp_path: Path) -> None:
    broken = tmp_path / "broken.c"
    broken.write_text("this is no C\n")
    with loader_by(tmp_path, *PRCTL_LOADER, "--source", str(broken)) as service:
        fault = fault_of(service)
    assert fault.kind == "compile"
    assert "broken.c:1" in fault.message


@pytest.mark.ebpf
@pytest.mark.usefixtures("ebpf_host")
def test_stop_ends_a_load_and_its_loader(endless: EndlessSource, tmp_path: Path) -> None:
    stop = StopSignal()
    with loader_by(tmp_path, *PRCTL_LOADER, "--source", str(endless.path)) as service:
        with endless.once_read(stop.set), pytest.raises(LoadStopped):
            ask_loader(256, 60, stop.fd, service.path)
        wait_until(lambda: not service.loaders(), "the loader has gone")


@pytest.mark.ebpf
@pytest.mark.usefixtures("ebpf_host")
def test_killed_loader_is_a_fault(endless: EndlessSource, tmp_path: Path) -> None:
    with loader_by(tmp_path, *PRCTL_LOADER, "--source", str(endless.path)) as service:

        def kill() -> None:
            for pid in service.loaders():
                os.kill(pid, signal.SIGKILL)

        with endless.once_read(kill), pytest.raises(ProbeFault) as caught:
            ask_loader(256, 60, path=service.path)
    assert caught.value.kind == "loader_died"
    assert "aod-loader@" in caught.value.remedy


def test_loader_that_says_nothing_leaves_its_last_words(tmp_path: Path) -> None:
    code = "os.write(noise, b'last words'); os.kill(os.getpid(), signal.SIGSEGV)"
    with loader_by(tmp_path, *stand_in(code)) as service:
        fault = fault_of(service)
    assert fault.kind == "loader_died"
    assert "last words" in fault.message


def test_loader_that_dies_before_it_reads_the_request(tmp_path: Path) -> None:
    with loader_by(tmp_path, "false") as service:
        assert fault_of(service).kind == "loader_died"


def test_slow_loader_is_a_timeout(tmp_path: Path) -> None:
    with loader_by(tmp_path, *stand_in("time.sleep(600)")) as service:
        assert fault_of(service, timeout_sec=0.5).kind == "timeout"


def test_nonsense_is_refused(tmp_path: Path) -> None:
    code = "socket.send_fds(channel, [b'no'], [0, 1, 2])"
    with loader_by(tmp_path, *stand_in(code)) as service:
        assert fault_of(service).kind == "garbage"


def test_a_socket_that_nobody_serves_is_named(tmp_path: Path) -> None:
    with loader_by(tmp_path, "false") as service:
        pass
    fault = fault_of(service)
    assert fault.kind == "no_loader"
    assert str(service.path) in fault.message


def test_rights_are_the_services_where_it_is_for_this_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with loader_by(tmp_path, "false") as service:
        monkeypatch.setattr(loader_service, "LOADER_SOCKET", service.path)
        service.path.chmod(0o600)
        assert offers_loading()
        assert missing_rights() is None
        if os.geteuid() == 0:
            with unprivileged(tmp_path):
                assert not offers_loading()
                fault = missing_rights()
            assert fault is not None
            assert fault.kind == "not_root"
            assert "aod-loader.socket" in fault.remedy


def test_load_goes_to_the_service_where_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = '{"fault": {"kind": "asked", "message": "the service", "remedy": "none"}}'
    with loader_by(tmp_path, *stand_in(f"channel.send({message!r}.encode())")) as service:
        monkeypatch.setattr(loader_service, "LOADER_SOCKET", service.path)
        with pytest.raises(ProbeFault) as caught:
            load_probe()
    assert caught.value.kind == "asked"
