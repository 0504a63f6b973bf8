"""A spool on a disk with a quota: a bundle is there whole or not at all, and the cause is named."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator

import pytest

from tests.vm.install import Installation
from tests.vm.machine import VirtualMachine
from tests.vm.service import COMMAND

DISK, SPOOL, CONFIG_FILE = "/mnt/quota", "/mnt/quota/spool", "/root/quota.yaml"
SET_UP = f"""
modprobe -a loop quota_v2
truncate -s 64M {DISK}.img
mkfs.ext4 -q -O quota {DISK}.img
mkdir -p {DISK}
mount -o loop,usrquota {DISK}.img {DISK}
"""
CONFIG = f"""\
aod_output_dir: {SPOOL}
cleanup:
  min_free_mb: 0
guardian:
  anomalies:
    hanging_commands:
      type: stall
"""
# quotactl(2), by the structure of <linux/quota.h>: root may take so many KB more than it has now;
# "-" is no limit.
SET_LIMIT = """
import ctypes, os, struct, sys
GET, SET, USERS, SPACE = 0x800007, 0x800008, 0, 1
disk, more = sys.argv[1:]
device = next(l.split()[0] for l in open("/proc/mounts") if l.split()[1] == disk).encode()
quotactl = ctypes.CDLL(None, use_errno=True).quotactl
record = ctypes.create_string_buffer(struct.calcsize("=8QII"))
for command in (GET, SET):
    if command == SET:
        used_kb = struct.unpack_from("=8Q", record)[2] // 1024
        limit = 0 if more == "-" else used_kb + int(more)
        struct.pack_into("=8QII", record, 0, limit, *[0] * 7, SPACE, 0)
    if quotactl(command << 8 | USERS, device, 0, record):
        sys.exit(os.strerror(ctypes.get_errno()))
"""
# Of root, a limit is asked only without this right.
BOUND = ("setpriv", "--bounding-set=-sys_resource", "--inh-caps=-sys_resource")


@pytest.fixture
def disk(vm: VirtualMachine, installation: Installation) -> Iterator[None]:
    """A file system on which root has a quota, and a configuration with the spool there."""
    vm.run(SET_UP)
    vm.write(CONFIG_FILE, CONFIG)
    yield
    vm.run(f"umount {DISK}; rm {DISK}.img {CONFIG_FILE}")


def limit(vm: VirtualMachine, more: str) -> None:
    """Let root take ``more`` KB than now; "-" ends the limit."""
    vm.run(["python3", "-c", SET_LIMIT, DISK, more])


def capture(vm: VirtualMachine) -> subprocess.CompletedProcess[str]:
    options = ["--config", CONFIG_FILE, "--runtime-dir", "/run/nobody", "--duration", "0", "--json"]
    return vm.run([*BOUND, COMMAND, "capture", *options], check=False, timeout=300)


def files(vm: VirtualMachine, directory: str) -> list[str]:
    return vm.run(["ls", "-A", f"{SPOOL}/{directory}"]).stdout.split()


def refused_within(vm: VirtualMachine, more_kb: int) -> bool:
    """Whether a capture finds less room than it needs; then there is nothing of it."""
    before = files(vm, "batches")
    limit(vm, str(more_kb))
    done = capture(vm)
    assert files(vm, "staging") == []
    if done.returncode == 0:
        return False
    assert (done.returncode, done.stdout) == (1, "")
    assert "aod-agent: no bundle: OSError: [Errno 122] Disk quota exceeded" in done.stderr
    assert files(vm, "batches") == before
    return True


def test_wherever_the_quota_ends_there_is_a_whole_bundle_or_none(
    vm: VirtualMachine, disk: None
) -> None:
    first = capture(vm)
    assert first.returncode == 0, first.stderr
    assert len(files(vm, "batches")) == 2
    rooms_kb = iter(range(0, 168, 24))
    refused = 0
    while refused_within(vm, next(rooms_kb)):
        refused += 1
    assert refused >= 2
    limit(vm, "-")
    again = capture(vm)
    assert again.returncode == 0, again.stderr
    archives = [name for name in files(vm, "batches") if name.endswith(".tar.zst")]
    assert len(archives) == 3
    assert json.loads(again.stdout)["path"] == f"{SPOOL}/batches/{archives[-1]}"
    vm.run(["zstd", "--quiet", "--test", *(f"{SPOOL}/batches/{name}" for name in archives)])
