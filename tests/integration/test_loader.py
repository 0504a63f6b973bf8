"""The hand-over from the loader to the agent on a real kernel, and the faults it names."""

from __future__ import annotations

import gc
import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import bpf
from agent.kernel.probe import load_probe
from bpf import abi
from bpf.load_fault import LoadFault
from bpf.preflight import require_rights, require_tracepoints
from bpf.probe_set import CIFS, SOURCE_DIRECTORY
from tests.ebpf_host import (
    PRCTL_LOADER,
    Kernel,
    ebpf_host,
    kernel,
    program_exists,
    program_ids,
    shared_probe,
    wait_until,
)
from tests.loader_faults import fault_of, open_descriptors

pytestmark = pytest.mark.ebpf
__all__ = ["ebpf_host", "kernel", "shared_probe"]

REPOSITORY = Path(bpf.__file__).parents[1]
READ = 8
SMALL_RING_RECORDS = 4096 // 72


@pytest.mark.usefixtures("ebpf_host")
def test_probe_describes_itself(kernel: Kernel) -> None:
    description = kernel.probe.description
    assert json.loads(json.dumps(description)) == description
    assert description["kernel"] == os.uname().release
    assert re.match(r"\d+\.\d+", description["bcc"])
    assert Path(description["headers"]["path"]).exists()
    assert description["headers"]["kind"] in {"environment", "exact", "kheaders", "installed"}
    assert description["compound"] == {"attached": False, "reason": "not asked for"}
    assert any("is_compounded" in note for note in description["missing"])
    assert list(kernel.probe.programs) == ["on_prctl"]


def test_arrays_are_the_kernels_memory(kernel: Kernel) -> None:
    probe = kernel.probe
    assert probe.settings.shape == probe.counters.shape == (1,)
    assert probe.inflight.shape == (abi.INFLIGHT_SLOTS,)
    assert probe.histograms.shape == (abi.COMMANDS, abi.BUCKETS)
    assert probe.ring_size == 256 * 4096
    assert len(probe.ring_consumer) == 4096
    assert len(probe.ring_producer) == 4096 + 2 * probe.ring_size
    with pytest.raises(TypeError):
        probe.ring_producer[0] = 1
    kernel.run(READ)
    assert probe.histograms[READ].sum() == 1


def test_descriptors_do_not_reach_the_agents_children(kernel: Kernel) -> None:
    for descriptor in (kernel.probe.ring_fd, *kernel.probe.programs.values()):
        assert not os.get_inheritable(descriptor)


@pytest.mark.usefixtures("ebpf_host")
def test_ring_takes_what_fits_and_counts_the_rest() -> None:
    probe = load_probe(ring_pages=1, command=PRCTL_LOADER)
    try:
        kernel = Kernel(probe)
        probe.settings["slow_ns"] = 1
        for _ in range(SMALL_RING_RECORDS + 4):
            kernel.run(READ)
        assert kernel.counters()["events"] == SMALL_RING_RECORDS
        assert kernel.counters()["ring_full"] == 4
        assert list(kernel.events()["mid"]) == list(range(1, SMALL_RING_RECORDS + 1))
        kernel.run(READ)
        assert list(kernel.events()["mid"]) == [SMALL_RING_RECORDS + 5]
        assert kernel.counters()["ring_full"] == 4
    finally:
        probe.close()


@pytest.mark.usefixtures("ebpf_host")
def test_close_detaches_and_views_stay_readable() -> None:
    probe = load_probe(command=PRCTL_LOADER)
    kernel = Kernel(probe)
    kernel.run(READ)
    programs, histograms = program_ids(probe), probe.histograms
    assert all(program_exists(number) for number in programs)
    probe.close()
    probe.close()
    wait_until(lambda: not any(map(program_exists, programs)), "the program is gone")
    kernel.run(READ)
    assert histograms.sum() == 1
    assert probe.programs == {}
    with pytest.raises(AttributeError):
        _ = probe.settings


@pytest.mark.usefixtures("ebpf_host")
def test_nothing_is_left_of_a_closed_probe() -> None:
    gc.collect()
    before = open_descriptors()
    probe = load_probe(command=PRCTL_LOADER)
    assert open_descriptors() != before
    probe.close()
    gc.collect()
    assert open_descriptors() == before


@pytest.mark.usefixtures("ebpf_host")
def test_killed_agent_leaves_nothing_attached_and_never_had_bcc() -> None:
    agent = subprocess.Popen(
        [sys.executable, "-m", "tests.probe_holder"],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert agent.stdout is not None
    try:
        seen = json.loads(agent.stdout.readline())
        assert seen["bcc"] is False
        assert seen["programs"]
        assert all(program_exists(number) for number in seen["programs"])
    finally:
        agent.kill()
        agent.communicate()
    wait_until(lambda: not any(map(program_exists, seen["programs"])), "the program is gone")


def test_run_statistics_count_what_ran(kernel: Kernel) -> None:
    switch = Path("/proc/sys/kernel/bpf_stats_enabled")
    setting = switch.read_text()
    try:
        switch.write_text("1")
        before = kernel.probe.run_statistics()["on_prctl"]
        kernel.run(READ)
        after = kernel.probe.run_statistics()["on_prctl"]
    finally:
        switch.write_text(setting)
    assert after["run_cnt"] >= before["run_cnt"] + 2
    assert after["run_time_ns"] > before["run_time_ns"]


def test_production_probes_need_the_cifs_module(ebpf_host: None) -> None:
    if Path("/sys/kernel/tracing/events/cifs").exists():
        pytest.skip("this machine has cifs")
    fault = fault_of(sys.executable, "-m", "bpf.loader")
    assert fault.kind == "no_cifs"
    assert "cifs:smb3_cmd_enter" in fault.message
    assert "modprobe cifs" in fault.remedy


def test_loader_reports_a_fault_with_its_exit_code(ebpf_host: None) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        channel = theirs.fileno()
        command = [*PRCTL_LOADER, "--no-headers", "--socket", str(channel)]
        result = subprocess.run(command, pass_fds=[channel], check=False, timeout=60)
        assert result.returncode == 3
        assert json.loads(ours.recv(1 << 16))["fault"]["kind"] == "no_headers"


@pytest.mark.usefixtures("ebpf_host")
def test_no_headers_names_the_package() -> None:
    fault = fault_of(*PRCTL_LOADER, "--no-headers")
    assert fault.kind == "no_headers"
    assert os.uname().release in fault.message
    assert os.uname().release in fault.remedy


@pytest.mark.parametrize(
    ("content", "kind"),
    [("raise ImportError('not here')", "no_bcc"), ("answer = 42", "wrong_bcc")],
)
def test_bcc_that_is_none(
    ebpf_host: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, kind: str
) -> None:
    (tmp_path / "bcc.py").write_text(content)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    fault = fault_of(*PRCTL_LOADER)
    assert fault.kind == kind
    assert "python3-bpfcc" in fault.remedy


@pytest.mark.usefixtures("ebpf_host")
def test_compiler_errors_are_not_lost(tmp_path: Path) -> None:
    source = tmp_path / "broken.c"
    source.write_text("int on_prctl(void *context) { return no_such_thing; }")
    fault = fault_of(*PRCTL_LOADER, "--source", str(source))
    assert fault.kind == "compile"
    assert "no_such_thing" in fault.message


@pytest.mark.usefixtures("ebpf_host")
def test_verifiers_word_is_not_lost(tmp_path: Path) -> None:
    source = tmp_path / "reckless.c"
    source.write_text("int on_prctl(void *context) { return slot_of(1, 1)->pid; }")
    fault = fault_of(*PRCTL_LOADER, "--source", str(source))
    assert fault.kind == "verifier"
    assert "map_value_or_null" in fault.message


@pytest.mark.usefixtures("ebpf_host")
def test_tracepoint_that_refuses_the_program_is_an_attach_fault() -> None:
    fault = fault_of(*PRCTL_LOADER, "--event", "sys_exit_getpid")
    assert fault.kind == "attach"
    assert "sys_exit_getpid" in fault.message


@pytest.mark.usefixtures("ebpf_host")
def test_another_layout_is_refused(tmp_path: Path) -> None:
    header = (SOURCE_DIRECTORY / "smb.h").read_text()
    moved = header.replace("\tu32 pid; /*", "\tu32 moved;\n\tu32 pid; /*")
    assert moved != header
    (tmp_path / "smb.h").write_text(moved)
    fault = fault_of(*PRCTL_LOADER, "--include", str(tmp_path))
    assert fault.kind == "layout"
    assert "smb_event.pid: 36 != 32" in fault.message
    assert "smb_event.sizeof: 72 != 64" in fault.message


@pytest.mark.usefixtures("ebpf_host")
def test_rights_to_load_are_checked() -> None:
    require_rights()
    unprivileged = subprocess.Popen(["sleep", "600"], user=65534)
    try:
        with pytest.raises(LoadFault) as caught:
            require_rights(Path(f"/proc/{unprivileged.pid}/status"))
    finally:
        unprivileged.send_signal(signal.SIGKILL)
        unprivileged.wait()
    assert caught.value.kind == "not_root"


def test_missing_tracefs_names_the_mount(tmp_path: Path) -> None:
    with pytest.raises(LoadFault) as caught:
        require_tracepoints(CIFS.tracepoints, places=[tmp_path])
    assert caught.value.kind == "no_tracefs"
    assert "mount -t tracefs" in caught.value.remedy


def test_settings_written_before_any_command_reach_the_program(kernel: Kernel) -> None:
    settings = np.zeros(1, abi.SETTINGS)
    settings["slow_ns"] = 1
    kernel.probe.settings[:] = settings
    kernel.run(READ)
    assert len(kernel.events()) == 1
