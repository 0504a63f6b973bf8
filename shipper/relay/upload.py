"""A session of rsync's daemon that can add archives to one folder, and nothing else."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from agent.children import Streams, signal_group, start_child
from agent.storage import durable_file
from agent.storage.spool import ARCHIVE
from shipper.relay.host_folder import HostFolder, Usage
from shipper.relay.limits import MAX_PARTIALS, MIB, Limits
from shipper.relay.refusal import Refusal

POLL_SEC = 0.2

_ULID_PATTERN = "[0-7]" + "[0-9A-HJKMNP-TV-Z]" * 25
# For the list of names that the client sends, which rsync keeps in memory.
_MAX_MEMORY = 256 * MIB

# Daemon mode keeps paths inside the module; the filter takes names of archives only, and of no
# directory, which a client can send without any option; of options there are those that resume a
# file in place (append implies inplace and partial) and pace it.
_CONFIG = """\
use chroot = no
reverse lookup = no
forward lookup = no
syslog facility = auth
syslog tag = aod-relay
max verbosity = 0
timeout = 60

[incoming]
path = {path}
list = no
read only = no
write only = yes
numeric ids = yes
munge symlinks = yes
incoming chmod = F0640
filter = - */ + /{pattern}{suffix} - *
refuse options = * !append !inplace !partial !timeout !bwlimit
"""


def serve_upload(folder: HostFolder, limits: Limits) -> int:
    """Run rsync on the session's standard streams; its exit status.

    Ended with a Refusal when the host, the disk or the bundle is over its limit. The children
    hold the folder's lock as long as they live. Raises OSError.
    """
    with folder.locked() as lock:
        folder.tidy()
        committed = folder.committed()
        limits.check(folder, committed + folder.under_way())
        status = _run_rsync(folder, limits, committed, lock)
        if status != 0:
            _refuse_oversized(folder, limits)
        return status


def _run_rsync(folder: HostFolder, limits: Limits, committed: Usage, lock: int) -> int:
    rsync = start_child(
        ["rsync", "--server", "--daemon", f"--config={_write_config(folder)}", "."],
        Streams(sys.stdout.fileno(), sys.stderr.fileno(), sys.stdin.fileno(), (lock,)),
        limits.max_bundle_mb * MIB,
    )
    try:
        with suppress(ProcessLookupError):  # it has ended already
            resource.prlimit(rsync.pid, resource.RLIMIT_AS, (_MAX_MEMORY, _MAX_MEMORY))
        while (status := _wait(rsync)) is None:
            under_way = folder.under_way()
            if under_way.files > MAX_PARTIALS:
                raise Refusal("denied", "too many files at once", "send one bundle at a time")
            limits.check(folder, committed + under_way)
        return status
    except BaseException:
        signal_group(rsync, signal.SIGKILL)
        rsync.wait()
        raise


def _wait(rsync: subprocess.Popen[bytes]) -> int | None:
    try:
        return rsync.wait(POLL_SEC)
    except subprocess.TimeoutExpired:
        return None


def _refuse_oversized(folder: HostFolder, limits: Limits) -> None:
    """Tell that the kernel's file size limit stopped rsync; what came of the file goes."""
    for path in folder.incoming.iterdir():
        if path.lstat().st_size >= limits.max_bundle_mb * MIB:
            path.unlink()
            raise Refusal(
                "denied",
                f"{path.name} is larger than the {limits.max_bundle_mb} MiB that the relay takes",
                "raise --max-bundle-mb in this host's authorized_keys line, or let the agent "
                "collect less",
            )


def _write_config(folder: HostFolder) -> Path:
    """Not into a descriptor: rsync 3.5 opens the path's parts one by one."""
    config = folder.root / "rsyncd.conf"
    content = _CONFIG.format(
        path=folder.incoming,
        pattern=_ULID_PATTERN,
        suffix=ARCHIVE,
    ).encode()
    with suppress(OSError):
        if durable_file.read_plain(config) == content:
            return config
    with durable_file.whole_file(config) as file:
        file.write(content)
    return config
