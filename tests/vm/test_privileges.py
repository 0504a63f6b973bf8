"""Who holds which right: the loader for seconds, the agent only what collecting needs."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.minio_server import MinioServer
from tests.vm.conftest import MOUNT_POINT
from tests.vm.install import Installation
from tests.vm.machine import VirtualMachine
from tests.vm.service import AGENT, COMMAND, Service
from tests.vm.smb_share import SmbShare

LOADERS, LOADER_SOCKET = "aod-loader@*.service", "/run/aod-loader.socket"
CAPABILITIES = {"CAP_DAC_READ_SEARCH": 2, "CAP_SYS_PTRACE": 19, "CAP_SYS_ADMIN": 21}
CAP_SYSLOG = 34
LOADING = f"systemctl is-active --quiet '{LOADERS}'"
NOBODY_LOADS = f"! {LOADING} && ! pgrep --full --exact '.*bpf[.]loader.*'"

# Numbers of x86-64. The argument is what unshare is refused for: CLONE_NEWNS.
FORBIDDEN = """\
import ctypes, errno
call = ctypes.CDLL(None, use_errno=True).syscall
numbers = dict(bpf=321, perf_event_open=298, ptrace=101, process_vm_writev=311, mount=165,
    unshare=272, init_module=175, setuid=105, add_key=248)
for name, number in numbers.items():
    ctypes.set_errno(0)
    call(number, 0x20000, 0, 0, 0, 0, 0)
    print(name, errno.errorcode.get(ctypes.get_errno(), "nothing"))
"""
# The agent's unit with another program in it.
TRY = f"""
sed -e 's,^ExecStart=.*,ExecStart=/usr/bin/python3 /opt/aod/try.py,' \\
    -e 's,^Type=.*,Type=oneshot,' \\
    -e '/^ExecReload\\|^Restart\\|^WatchdogSec\\|Directory/d' \\
    /etc/systemd/system/{AGENT} >/run/systemd/system/aod-try.service
systemctl daemon-reload
systemctl start aod-try.service
journalctl --sync
journalctl --no-pager --output=cat --identifier=python3 --unit=aod-try.service
rm /run/systemd/system/aod-try.service /opt/aod/try.py
systemctl daemon-reload
"""
# BPF_PROG_GET_FD_BY_ID, for each of the programs; prints those that the kernel still has.
STILL_THERE = """
import ctypes, sys
call = ctypes.CDLL(None, use_errno=True).syscall
print(*(n for n in sys.argv[1:] if call(321, 13, (ctypes.c_uint32 * 32)(int(n)), 128) >= 0))
"""


@pytest.fixture(scope="module")
def service(
    vm: VirtualMachine, share: SmbShare, installation: Installation, minio: MinioServer
) -> Iterator[Service]:
    running = Service(vm, minio)
    running.start()
    yield running
    running.stop()


def programs(vm: VirtualMachine, service: Service) -> list[str]:
    """The kernel's numbers of the agent's programs."""
    pid = service.status()["pid"]
    found = vm.run(f"cat /proc/{pid}/fdinfo/* 2>/dev/null | awk '/^prog_id:/ {{print $2}}'; true")
    return sorted(set(found.stdout.split()))


def begin_a_load(vm: VirtualMachine) -> None:
    """Restart the agent; returns in the midst of the loading."""
    vm.run(["systemctl", "restart", AGENT], timeout=180)
    vm.wait_until(f"{LOADING} && pgrep --full '[b]pf.loader' >/dev/null")


def test_the_agent_holds_what_collecting_needs_and_no_more(
    vm: VirtualMachine, service: Service
) -> None:
    status = vm.run(["cat", f"/proc/{service.status()['pid']}/status"]).stdout
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    expected = sum(1 << number for number in (*CAPABILITIES.values(), CAP_SYSLOG))
    assert {int(fields[name], 16) for name in ("CapEff", "CapPrm", "CapBnd")} == {expected}
    assert int(fields["CapInh"], 16) == int(fields["CapAmb"], 16) == 0
    assert (fields["NoNewPrivs"], fields["Seccomp"]) == ("1", "2")


def test_its_administrators_right_opens_stacks_and_no_system_call(
    vm: VirtualMachine, service: Service
) -> None:
    vm.write("/opt/aod/try.py", FORBIDDEN)
    refused = dict(line.split() for line in vm.run(TRY).stdout.splitlines())
    assert len(refused) == 9
    assert set(refused.values()) == {"EPERM"}, refused


def test_the_loader_is_gone_and_could_attach_everything(
    vm: VirtualMachine, service: Service
) -> None:
    vm.wait_until(NOBODY_LOADS)
    source = service.status()["source"]
    assert source["missing"] == []
    assert source["compound"] == {"attached": True, "reason": ""}
    assert vm.run(["stat", "-c", "%a %U:%G", LOADER_SOCKET]).stdout.split() == ["600", "root:root"]


def test_a_killed_agent_leaves_no_program_in_the_kernel(
    vm: VirtualMachine, service: Service
) -> None:
    before, numbers = service.status()["pid"], programs(vm, service)
    assert len(numbers) >= 4
    assert vm.run(["python3", "-c", STILL_THERE, *numbers]).stdout.split() == numbers
    vm.run(["systemctl", "kill", "--signal=KILL", AGENT])
    vm.wait_until(f"pid=$(systemctl show -P MainPID {AGENT}); test $pid != {before} -a $pid -gt 0")
    service.wait_until_watching()
    assert vm.run(["python3", "-c", STILL_THERE, *numbers]).stdout.split() == []


def test_a_killed_loader_is_a_fault_and_the_next_one_loads(
    vm: VirtualMachine, service: Service
) -> None:
    begin_a_load(vm)
    vm.run(["systemctl", "kill", "--signal=KILL", LOADERS])
    vm.wait_until(f"journalctl -u {AGENT} --grep 'loader_died: .* ended without a word'")
    service.wait_until_watching()
    assert "loader_died" in service.status()["components"]["EventDispatcher"]["last_fault"]


def test_a_stop_while_loading_ends_the_loader_too(vm: VirtualMachine, service: Service) -> None:
    begin_a_load(vm)
    vm.run(["systemctl", "stop", AGENT], timeout=120)
    assert vm.run(["systemctl", "show", "-P", "Result", AGENT]).stdout.strip() == "success"
    vm.wait_until(NOBODY_LOADS)
    assert vm.run(["systemctl", "list-units", "--failed", "--no-legend"]).stdout == ""
    vm.run(["test", "!", "-e", LOADER_SOCKET])


def test_without_the_service_a_root_shell_loads_by_itself(
    vm: VirtualMachine, service: Service
) -> None:
    vm.run(["systemctl", "stop", AGENT], timeout=120)
    assert record(vm) > 0
    vm.run(["systemctl", "start", AGENT], timeout=180)
    service.wait_until_watching()


def test_a_recording_beside_the_service_is_loaded_by_a_loader_of_its_own(
    vm: VirtualMachine, service: Service
) -> None:
    started = f"journalctl --no-pager -b -u '{LOADERS}' --grep Started --output=cat | wc -l"
    before = int(vm.run(started).stdout)
    assert record(vm) > 0
    assert int(vm.run(started).stdout) == before + 1
    assert service.status()["source"]["state"] == "watching"


def record(vm: VirtualMachine) -> int:
    """How many commands a recording has, with some work on the share beside it."""
    work = f"while touch {MOUNT_POINT}/recorded && rm {MOUNT_POINT}/recorded; do sleep 0.2; done"
    done = vm.run(
        f"({work}) </dev/null >/dev/null 2>&1 & work=$!\n"
        f"trap 'kill $work; rm -f /root/try.trace {MOUNT_POINT}/recorded' EXIT\n"
        f"{COMMAND} record /root/try.trace --duration 3 --json",
        timeout=300,
    )
    return int(json.loads(done.stdout)["events"])
