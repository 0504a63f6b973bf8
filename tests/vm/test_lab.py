"""The lab proves itself: what later tests trust is seen to work, and each fault to bite."""

import subprocess
import uuid

import pytest

from tests.vm.conftest import MOUNT_POINT
from tests.vm.guest import GuestCommandError
from tests.vm.machine import VirtualMachine
from tests.vm.smb_server import PRIVATE_SHARE
from tests.vm.smb_share import SmbShare

DELAY_MS = 400

# Prints the seconds that each of the two file operations took.
_TIMED = """
import os, sys, time
path = sys.argv[1]
def timed(operation):
    started = time.monotonic()
    operation()
    print(time.monotonic() - started)
timed(lambda: open(path, "x").close())
timed(lambda: os.stat(path))
"""


def timed_operations(vm: VirtualMachine) -> dict[str, float]:
    """Seconds in the guest for creating a new file and for a stat of it."""
    seconds = vm.run(["python3", "-c", _TIMED, fresh_path()]).stdout.split()
    return dict(zip(("create", "stat"), map(float, seconds), strict=True))


def fresh_path() -> str:
    return f"{MOUNT_POINT}/{uuid.uuid4().hex}"


def test_guest_has_mounted_the_share(vm: VirtualMachine, share: SmbShare) -> None:
    mounts = vm.run(["findmnt", "--noheadings", "--output", "FSTYPE,OPTIONS", MOUNT_POINT]).stdout
    assert mounts.startswith("cifs")
    assert "vers=3.1.1" in mounts


def test_kernel_has_the_tracepoints_the_agent_needs(vm: VirtualMachine, share: SmbShare) -> None:
    for event in ("smb3_cmd_enter", "smb3_cmd_done", "smb3_cmd_err"):
        vm.run(["test", "-d", f"/sys/kernel/tracing/events/cifs/{event}"])


def test_kernel_headers_match_the_running_kernel(vm: VirtualMachine) -> None:
    release = vm.run(["uname", "-r"]).stdout.strip()
    vm.run(["test", "-f", f"/lib/modules/{release}/build/Makefile"])


def test_injected_delay_is_felt_by_every_operation(vm: VirtualMachine, share: SmbShare) -> None:
    before = timed_operations(vm)
    with share.server_delay(DELAY_MS):
        during = timed_operations(vm)
    after = timed_operations(vm)
    for operation in ("create", "stat"):
        assert during[operation] >= DELAY_MS / 1000
        assert min(before[operation], after[operation]) < DELAY_MS / 1000


def test_write_hangs_with_the_server_and_then_completes(
    vm: VirtualMachine, share: SmbShare
) -> None:
    path = fresh_path()
    with share.server_hang():
        writer = vm.start(["dd", "if=/dev/zero", f"of={path}", "bs=4096", "count=1"])
        vm.wait_until("grep -q 'State: 2 com: 5 ' /proc/fs/cifs/DebugData")
        assert writer.poll() is None
    _, complaint = writer.communicate(timeout=60)
    assert writer.returncode == 0, complaint
    assert vm.run(["stat", "--format=%s", path]).stdout.strip() == "4096"


def test_denied_permission_is_eacces_at_the_client(vm: VirtualMachine, share: SmbShare) -> None:
    path = fresh_path()
    vm.run(["touch", path])
    with (
        share.permission_denied(path.removeprefix(f"{MOUNT_POINT}/")),
        pytest.raises(GuestCommandError, match="Permission denied"),
    ):
        vm.run(["cat", path])
    vm.run(["cat", path])


def test_dropped_replies_are_sent_again_later(vm: VirtualMachine, share: SmbShare) -> None:
    path = fresh_path()
    with share.dropped_connection():
        writer = vm.start(["touch", path])
        vm.wait_until("grep -q 'State: 2 com: 5 ' /proc/fs/cifs/DebugData")
    assert writer.wait(timeout=120) == 0
    vm.run(["test", "-e", path])


def test_mount_recovers_from_a_killed_server(vm: VirtualMachine, share: SmbShare) -> None:
    with share.server_killed():
        assert vm.run(["systemctl", "is-active", "lab-smbd"], check=False).returncode != 0
    path = fresh_path()
    vm.wait_until(["touch", path])
    vm.run(["test", "-e", path])


def test_private_share_knows_its_user(vm: VirtualMachine, share: SmbShare) -> None:
    share.mount("/mnt/private", PRIVATE_SHARE)
    try:
        vm.run(["touch", "/mnt/private/mine"])
        owner = vm.run(["stat", "--format=%U", share.server_path("mine", PRIVATE_SHARE)])
        assert owner.stdout.strip() == "alice"
    finally:
        share.unmount("/mnt/private")


def test_failed_command_tells_its_output(vm: VirtualMachine) -> None:
    with pytest.raises(GuestCommandError, match=r"(?s)exited with 3.*a reason") as failure:
        vm.run("echo a reason >&2; exit 3")
    assert isinstance(failure.value.done, subprocess.CompletedProcess)


def test_files_travel_both_ways(vm: VirtualMachine, tmp_path) -> None:
    sent = tmp_path / "sent"
    sent.write_bytes(bytes(range(256)))
    vm.put(sent, "/tmp/travelling")
    vm.get("/tmp/travelling", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == sent.read_bytes()
    vm.write("/tmp/written", "text\n", mode=0o600)
    assert vm.run(["stat", "--format=%a %s", "/tmp/written"]).stdout.strip() == "600 5"
