"""What a running agent can be told, over its socket and by signal, with a real kernel program."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from agent.config_loader import load_config
from agent.configuration.schema import Config
from agent.controller import Controller
from agent.events.event_source import EventSource
from agent.kernel import module_events, probe_opener
from agent.kernel.kernel_filter import kernel_settings
from agent.kernel.probe import Probe, load_probe
from agent.kernel.probe_opener import ProbeOpener
from agent.live_orders import LiveOrders
from agent.service.status_server import SOCKET_NAME, NotRunningError, give_order, query_status
from agent.service.stop_signal import StopSignal
from tests.ebpf_host import (
    DEADLINE_SEC,
    PRCTL_LOADER,
    Kernel,
    ebpf_host,
    program_exists,
    program_ids,
    wait_until,
)
from tests.integration.test_module_events import announce
from tests.live_agent import slow_command

pytestmark = pytest.mark.ebpf
__all__ = ["ebpf_host"]

PROJECT = Path(__file__).parents[2]
READ, WRITE = 8, 9
MS = 1_000_000
NOBODY = 65534
HEAD = """\
watch_interval_sec: 3600
aod_output_dir: {spool}
watcher:
  batch_max_wait_sec: 0.05
collection:
  after_sec: 0
guardian:
  anomalies:
"""
RULE = """\
    {name}:
      type: latency
      tool: smbslower
      mode: trackonly
      acceptable_count: {count}
      single_event_threshold_ms: 100000
      track_commands: [{{command: {command}, threshold: {limit_ms}}}]
      actions: [mounts]
"""


def rule(name: str, command: str, limit_ms: int = 300, count: int = 5) -> str:
    return RULE.format(name=name, command=command, limit_ms=limit_ms, count=count)


SLOW_READS = rule("slow_reads", "SMB2_READ")
SLOW_WRITES = rule("slow_writes", "SMB2_WRITE")

HANGING = "    hanging: {type: stall, stall_sec: 1, actions: [mounts]}\n"


class WatchedOpener(ProbeOpener):
    """Calls ``opened`` when a source has its settings, and nobody else has the source."""

    opened: Callable[[], object] = staticmethod(lambda: None)

    def __call__(self, stop: StopSignal) -> EventSource | None:
        source = super().__call__(stop)
        self.opened()
        return source


class OrderedAgent:
    """An agent as `aod-agent run` makes it, but its probes are on prctl and ``sign`` stands for
    the directory of the cifs module."""

    def __init__(
        self, directory: Path, sign: Path, probes: list[Probe], may_load: threading.Event
    ) -> None:
        self.runtime = directory / "run"
        self.sign = sign
        self.may_load = may_load
        self.file = directory / "config.yaml"
        self._probes = probes
        self.write(SLOW_READS)
        config = self._load()
        opener = WatchedOpener(kernel_settings(config.guardian.anomalies.values()))
        self.opener = opener
        self.controller = Controller(config, opener, lambda: opener.state, self.runtime)
        orders = LiveOrders(config, self._load, self.controller, opener)
        self.controller.obey(orders.by_name)
        self.controller.start()
        self.wait_until_watching(1)

    @property
    def probe(self) -> Probe:
        """The one that was loaded last."""
        return self._probes[-1]

    def write(self, *rules: str) -> None:
        spool = self.runtime.with_name("spool")
        self.file.write_text(HEAD.format(spool=spool) + "".join(rules))

    def order(self, word: str) -> dict[str, Any]:
        return give_order(self.runtime, word)

    def status(self) -> dict[str, Any]:
        return query_status(self.runtime)

    def wait_until_watching(self, sources_opened: int) -> None:
        """Until that many sources have been opened, and the last one is watched."""
        wait_until(
            lambda: (
                (self.status()["events"]["sources_opened"], self.state())
                == (sources_opened, "watching")
            ),
            f"source number {sources_opened} is watched",
        )

    def state(self) -> str:
        return str(self.status()["source"]["state"])

    def slow(self, command: int, times: int, session: int = 7) -> None:
        """Commands of 400 ms; returns when detection has seen them."""
        examined = self.status()["events"]["examined"]
        kernel = Kernel(self.probe)
        for _ in range(times):
            slow_command(kernel, command, 0.4, session=session)
        wait_until(lambda: self.status()["events"]["examined"] >= examined + times, "all are taken")
        watcher = self.controller.watcher
        beats = watcher.beats
        watcher.ping()
        wait_until(lambda: watcher.beats > beats, "detection is done with them")

    def rules_of_the_incident(self) -> dict[str, int]:
        """Triggers by rule of the only incident: nobody knows the servers of these sessions."""
        (incident,) = self.status()["incidents"]["open"]
        return dict(incident["rules"])

    def triggered(self) -> list[str]:
        """The rules of the bundles so far, one for each incident, in their order."""
        opened = self.status()["incidents"]["opened"]
        wait_until(lambda: self.status()["bundles"]["made"] >= opened, "all is collected")
        return [bundle.manifest()["anomaly"] for bundle in self.controller.spool.finished()]

    def slow_ns(self, command: int) -> int:
        """The limit in the kernel's memory."""
        return int(self.probe.settings["slow_ns"][0, command])

    def _load(self) -> Config:
        return load_config(self.file).config


@pytest.fixture
def agent(
    ebpf_host: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[OrderedAgent]:
    probes: list[Probe] = []
    may_load = threading.Event()
    may_load.set()

    def load(stop_fd: int) -> Probe:
        assert may_load.wait(DEADLINE_SEC)
        probes.append(load_probe(command=PRCTL_LOADER, stop_fd=stop_fd))
        return probes[-1]

    sign = tmp_path / "cifs"
    sign.mkdir()
    for name, place in (
        ("wait_for_cifs", {"signs": [sign]}),
        ("wait_for_new_cifs", {"module": sign}),
        ("loaded_cifs", {"module": sign}),
    ):
        function = partial(getattr(module_events, name), **place)
        monkeypatch.setattr(probe_opener, name, function)
    monkeypatch.setattr(probe_opener, "load_probe", load)
    agent = OrderedAgent(tmp_path, sign, probes, may_load)
    yield agent
    agent.controller.shutdown()


def test_reload_changes_the_kernels_limits_and_attaches_nothing_anew(agent: OrderedAgent) -> None:
    programs = program_ids(agent.probe)
    assert (agent.slow_ns(READ), agent.slow_ns(WRITE)) == (300 * MS, 0)
    agent.write(rule("slow_reads", "SMB2_READ", limit_ms=700), SLOW_WRITES)
    assert agent.order("reload") == {
        "changed": ["guardian.anomalies.slow_reads", "guardian.anomalies.slow_writes"],
        "needs_restart": [],
    }
    assert (agent.slow_ns(READ), agent.slow_ns(WRITE)) == (700 * MS, 300 * MS)
    assert program_ids(agent.probe) == programs
    assert all(map(program_exists, programs))
    assert agent.status()["events"]["sources_opened"] == 1
    agent.slow(WRITE, 5)
    assert agent.triggered() == ["slow_writes"]


def test_a_rule_that_stays_keeps_its_count_and_one_that_changed_begins_anew(
    agent: OrderedAgent,
) -> None:
    agent.write(SLOW_READS, SLOW_WRITES)
    agent.order("reload")
    agent.slow(READ, 4, session=1)
    agent.slow(WRITE, 4, session=2)
    agent.write(rule("slow_writes", "SMB2_WRITE", limit_ms=200), SLOW_READS)
    assert agent.order("reload")["changed"] == ["guardian.anomalies.slow_writes"]
    agent.slow(WRITE, 4, session=2)
    assert agent.triggered() == []
    agent.slow(READ, 1, session=1)
    assert agent.triggered() == ["slow_reads"]
    agent.slow(WRITE, 1, session=2)
    assert agent.rules_of_the_incident() == {"slow_reads": 1, "slow_writes": 1}


def test_a_removed_rule_triggers_no_more(agent: OrderedAgent) -> None:
    agent.slow(READ, 4)
    # Another rule still has the kernel report reads.
    agent.write(rule("many_reads", "SMB2_READ", count=20))
    changed = agent.order("reload")["changed"]
    assert changed == ["guardian.anomalies.many_reads", "guardian.anomalies.slow_reads"]
    agent.slow(READ, 19)
    assert agent.triggered() == []
    agent.slow(READ, 1)
    assert agent.triggered() == ["many_reads"]


def test_a_rule_for_hangs_that_a_reload_brings_finds_what_hangs_already(
    agent: OrderedAgent,
) -> None:
    kernel = Kernel(agent.probe)
    kernel.enter(READ, mid=kernel.next_mid())
    agent.write(SLOW_READS, HANGING)
    agent.order("reload")
    wait_until(lambda: agent.status()["incidents"]["opened"] == 1, "the hang is seen")
    assert agent.triggered() == ["hanging"]


def test_what_a_reload_cannot_change_is_said(agent: OrderedAgent) -> None:
    agent.write(SLOW_READS)
    file = agent.runtime.with_name("config.yaml")
    file.write_text(
        file.read_text().replace("watcher:", "watcher:\n  flight_recorder_events: 2000")
    )
    waiting = ["watcher.flight_recorder_events"]
    assert agent.order("reload") == {"changed": waiting, "needs_restart": waiting}


def test_a_bad_file_leaves_the_old_configuration_running(agent: OrderedAgent) -> None:
    agent.slow(READ, 4)
    agent.write(rule("slow_reads", "SMB2_READ", count=0))
    answer = agent.order("reload")
    (fault,) = answer["faults"]
    file = agent.file
    line = 1 + file.read_text().split("acceptable_count")[0].count("\n")
    place = f"{file}:{line}: guardian.anomalies.slow_reads.acceptable_count"
    assert fault.startswith(place)
    assert place in answer["error"]

    done = aod_agent("reload", "--runtime-dir", agent.runtime)
    assert (done.returncode, done.stdout) == (2, "")
    assert place in done.stderr
    assert "the old one stays" in done.stderr

    file.unlink()
    assert "faults" in agent.order("reload")
    agent.slow(READ, 1)
    assert agent.triggered() == ["slow_reads"]


def test_the_command_says_what_changed(agent: OrderedAgent) -> None:
    agent.write(SLOW_READS, SLOW_WRITES)
    done = aod_agent("reload", "--runtime-dir", agent.runtime)
    assert (done.returncode, done.stderr) == (0, "")
    assert "guardian.anomalies.slow_writes" in done.stdout


def test_detach_closes_the_source_and_attach_opens_another(agent: OrderedAgent) -> None:
    programs = program_ids(agent.probe)
    assert agent.order("detach") == {"state": "detached"}
    assert agent.probe.programs == {}
    wait_until(lambda: not any(map(program_exists, programs)), "the kernel has let go of all")
    wait_until(lambda: agent.state() == "detached", "the status says so")
    # A new configuration meanwhile is that of the next source.
    agent.write(rule("slow_reads", "SMB2_READ", limit_ms=350))
    assert "error" not in agent.order("reload")
    announce()
    assert agent.status()["events"]["sources_opened"] == 1

    agent.order("attach")
    agent.wait_until_watching(2)
    assert agent.slow_ns(READ) == 350 * MS
    agent.slow(READ, 5)
    assert agent.triggered() == ["slow_reads"]


def test_a_reload_at_the_moment_a_source_is_opened_is_not_lost(agent: OrderedAgent) -> None:
    agent.order("detach")
    agent.write(rule("slow_reads", "SMB2_READ", limit_ms=350))
    agent.opener.opened = lambda: agent.order("reload")
    agent.order("attach")
    agent.wait_until_watching(2)
    assert agent.slow_ns(READ) == 350 * MS


def test_a_detached_agent_watches_the_module_that_is_loaded_anew(agent: OrderedAgent) -> None:
    agent.order("detach")
    wait_until(lambda: agent.state() == "detached", "it is detached")
    # The kernel announces the end of a module before its directory is gone, and nothing after.
    agent.sign.rename(agent.sign.with_name("gone"))
    agent.sign.mkdir()
    announce()
    agent.wait_until_watching(2)


def test_a_second_detach_changes_nothing(agent: OrderedAgent) -> None:
    for _ in range(2):
        agent.order("detach")
        wait_until(lambda: agent.state() == "detached", "it is detached")
    agent.order("attach")
    agent.wait_until_watching(2)
    agent.slow(READ, 5)
    assert agent.triggered() == ["slow_reads"]
    assert agent.status()["events"]["sources_opened"] == 2


def test_detach_while_there_is_no_module_ends_when_it_comes(agent: OrderedAgent) -> None:
    agent.order("detach")
    wait_until(lambda: agent.state() == "detached", "it is detached")
    agent.sign.rmdir()
    agent.order("attach")
    wait_until(lambda: agent.state() == "waiting_for_cifs", "it waits")
    assert agent.order("detach") == {"state": "detached"}
    agent.sign.mkdir()
    announce()
    agent.wait_until_watching(2)


def test_detach_while_the_program_is_loaded_lets_go_of_it(agent: OrderedAgent) -> None:
    agent.order("detach")
    agent.may_load.clear()
    agent.order("attach")
    wait_until(lambda: agent.state() == "loading", "it loads")
    with ThreadPoolExecutor(1) as other:
        answer = other.submit(agent.order, "detach")
        wait_until(lambda: agent.opener._again is not None, "the order is taken")
        agent.may_load.set()
        assert answer.result() == {"state": "detached"}
    assert agent.probe.programs == {}
    wait_until(lambda: agent.state() == "detached", "the status says so")
    agent.order("attach")
    agent.wait_until_watching(3)
    agent.slow(READ, 5)
    assert agent.triggered() == ["slow_reads"]


def test_attach_of_an_agent_that_watches_changes_nothing(agent: OrderedAgent) -> None:
    programs = program_ids(agent.probe)
    assert agent.order("attach") == {"error": "the agent is not detached"}
    agent.slow(READ, 5)
    assert agent.triggered() == ["slow_reads"]
    assert program_ids(agent.probe) == programs


def test_an_unknown_order_is_refused_and_silence_asks_for_the_status(agent: OrderedAgent) -> None:
    assert agent.order("halt") == {"error": "no such order: halt"}
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.connect(str(agent.runtime / SOCKET_NAME))
        client.shutdown(socket.SHUT_WR)
        with client.makefile("rb") as answer:
            assert json.loads(answer.read())["source"]["state"] == "watching"


# Sends its first argument to the socket in its second.
CLIENT = """
import socket, sys
with socket.socket(socket.AF_UNIX) as client:
    client.connect(sys.argv[2])
    client.sendall(sys.argv[1].encode())
    client.shutdown(socket.SHUT_WR)
    print(client.makefile().read())
"""


def as_nobody(word: str, path: Path, group: int) -> subprocess.CompletedProcess[str]:
    """What another user is answered; the interpreter must be one that everybody may run."""
    return subprocess.run(
        [Path(sys.base_prefix) / "bin/python3", "-IS", "-c", CLIENT, word, path],
        user=NOBODY,
        group=group,
        extra_groups=[],
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_orders_are_roots_and_the_status_is_the_groups(
    agent: OrderedAgent, public_directory: Path
) -> None:
    path = agent.runtime / SOCKET_NAME
    public = public_directory / SOCKET_NAME
    os.link(path, public)
    for order in ("reload", "detach", "attach"):
        answer = json.loads(as_nobody(order, public, group=os.getegid()).stdout)
        assert answer == {"error": f"{order}: only root may order that"}
    assert json.loads(as_nobody("", public, group=os.getegid()).stdout)["version"]
    assert "PermissionError" in as_nobody("", public, group=NOBODY).stderr
    assert agent.state() == "watching"
    assert agent.status()["events"]["sources_opened"] == 1


def aod_agent(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "agent.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        cwd=PROJECT,
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="aod-agent run needs root")
def test_hangup_signal_reloads_and_a_bad_file_ends_nothing(tmp_path: Path) -> None:
    file, spool, runtime = tmp_path / "config.yaml", tmp_path / "spool", tmp_path / "run"
    log = tmp_path / "log"

    def write(*rules: str) -> None:
        file.write_text(HEAD.format(spool=spool) + "".join(rules))

    write(SLOW_READS)
    with log.open("wb") as errors:
        running = subprocess.Popen(
            [sys.executable, "-m", "agent.cli", "run", "--config", str(file)],
            stderr=errors,
            cwd=PROJECT,
            env={**os.environ, "RUNTIME_DIRECTORY": str(runtime)},
        )
    try:
        wait_until(lambda: answers(runtime), "the agent answers")
        write(SLOW_READS, SLOW_WRITES)
        running.send_signal(signal.SIGHUP)
        wait_until(says(log, "anew: guardian.anomalies.slow_writes"), "it is loaded")
        write(rule("slow_reads", "SMB2_READ", count=0))
        running.send_signal(signal.SIGHUP)
        wait_until(says(log, "slow_reads.acceptable_count"), "the bad file is refused")
        assert query_status(runtime)["pid"] == running.pid
        # What runs is what the last good file said.
        write(SLOW_READS, SLOW_WRITES)
        assert give_order(runtime, "reload")["changed"] == []
    finally:
        running.terminate()
    assert running.wait(timeout=120) == 0
    assert "Traceback" not in log.read_text()


def answers(runtime: Path) -> bool:
    try:
        return bool(query_status(runtime))
    except NotRunningError:
        return False


def says(log: Path, text: str) -> Callable[[], bool]:
    return lambda: text in log.read_text()
