"""What the quick actions run, for a given scene. Looks at names and links, opens no file of a
mount: a sick one must block a child and nobody else."""

from __future__ import annotations

import shutil
import stat
from collections.abc import Callable, Iterable
from pathlib import Path

from agent.collection.process_sampler import command_line
from agent.collection.quick_action import Argv, Command
from agent.collection.scene import Scene

SYSLOG_LINES = 500
MAX_QUERIES = 4
MAX_THREADS = 32
MAX_TICKET_CACHES = 8
CAPTURED_BYTES_OF_PACKET = 256
SMB_PORT = 445

# Kernel threads that serve SMB mounts: a demultiplexer for each connection, and workers.
CIFS_THREADS = (
    "cifsd",
    "cifsiod",
    "smb3decryptd",
    "cifsfileinfoput",
    "cifsoplockd",
    "deferredclose",
)
PACKAGES = ("cifs-utils", "keyutils", "krb5-user", "libkrb5-3", "samba-common", "winbind")
RPM_PACKAGES = ("cifs-utils", "keyutils", "krb5-workstation", "krb5-libs", "samba-common")
REQUEST_KEY = (
    "request-key.conf",
    "request-key.d/cifs.spnego.conf",
    "request-key.d/cifs.idmap.conf",
)


def proc_file(*parts: str) -> Callable[[Scene], list[Command]]:
    """Commands that copy the file at ``parts`` of /proc."""

    def commands(scene: Scene) -> list[Command]:
        path = scene.roots.proc.joinpath(*parts)
        return [Command(("cat", str(path)))] if path.exists() else []

    return commands


def of_host(name: str) -> Callable[[Scene], list[Command]]:
    """Commands that copy a file of the first process."""

    def commands(scene: Scene) -> list[Command]:
        path = scene.of_host(name)
        return [Command(("cat", str(path)))] if path else []

    return commands


def stacks(scene: Scene) -> list[Command]:
    """Kernel stacks of the scene's processes, all threads, and of the kernel's SMB threads: a
    child each, because reading one blocks while its process is in execve."""
    proc = scene.roots.proc
    commands = []
    for pid in scene.pids:
        threads = sorted(
            proc.glob(f"{pid}/task/[0-9]*"),
            key=lambda thread: (int(thread.name) not in scene.threads, int(thread.name)),
        )[:MAX_THREADS]
        commands += _show(
            thread / name for thread in threads for name in ("comm", "wchan", "stack")
        )
    servants = [comm.parent for comm in proc.glob("[0-9]*/comm") if _serves_cifs(comm)]
    commands += _show(one / name for one in servants[:MAX_THREADS] for name in ("comm", "stack"))
    return commands


def sockets(scene: Scene) -> list[Command]:
    """TCP's own view of the connections to SMB servers."""
    ports = sorted({SMB_PORT, *(mount.port for mount in scene.mounts() if mount.port)})
    wanted = " or ".join(f"dport = :{port}" for port in ports)
    return [
        Command(("ss", "--tcp", "--info", "--numeric", "--options", "--extended", f"( {wanted} )"))
    ]


def process_samples(scene: Scene) -> list[Command]:
    """CPU, memory and I/O of the scene's processes, ten times a second."""
    if not scene.pids:
        return []
    return [Command(command_line(scene.pids, str(scene.roots.proc)))]


def packets(scene: Scene) -> list[Command]:
    """The beginnings of the packets from and to SMB servers."""
    ports = sorted({SMB_PORT, *(mount.port for mount in scene.mounts() if mount.port)})
    options = ("-i", "any", "-n", "-U", "-Z", "root", "-s", str(CAPTURED_BYTES_OF_PACKET))
    wanted = " or ".join(f"tcp port {port}" for port in ports)
    return [Command(("tcpdump", *options, "-w", "-", wanted))]


def file_queries(scene: Scene) -> list[Command]:
    """One query to the server for each file in use, else for each mount point."""
    points = dict.fromkeys(mount.mount_point for mount in scene.mounts())
    names = scene.open_files(MAX_QUERIES) or list(points)[:MAX_QUERIES]
    return [Command(("smbinfo", "filebasicinfo", name)) for name in names]


def kernel_log(scene: Scene) -> list[Command]:
    """The kernel's messages, by its own clock."""
    return [_journal(scene, "--dmesg")] if _has_journal(scene) else [Command(("dmesg",))]


def journal(scene: Scene) -> list[Command]:
    """Every message of the host."""
    return [_journal(scene)] if _has_journal(scene) else []


def syslogs(scene: Scene) -> list[Command]:
    """The end of the log file, on hosts that have one."""
    for path in (scene.roots.log / "syslog", scene.roots.log / "messages"):
        if path.exists():
            return [Command(("tail", f"--lines={SYSLOG_LINES}", str(path)))]
    return []


def system_facts(scene: Scene) -> list[Command]:
    """Release, kernel, cifs module with its settings, tools, uptime and reboots.

    mount.cifs has the version of cifs-utils; asked for it, it wants capabilities.
    """
    roots = scene.roots
    files = [roots.etc / "os-release"]
    files += [roots.proc / name for name in ("version", "cmdline", "uptime", "loadavg")]
    files += [roots.proc / "sys/kernel/tainted", roots.sys / "module/cifs/version"]
    files += sorted((roots.sys / "module/cifs/parameters").glob("*"))
    files += sorted((roots.proc / "fs/cifs").glob("*[a-z]Enabled"))
    return [
        *_show(files),
        Command(("uname", "--all")),
        Command(("modinfo", "cifs"), absent_exit=1),
        _packages(),
        Command(("last", "-x", "-n", "10", "reboot")),
    ]


def key_state(scene: Scene) -> list[Command]:
    """Which keys and Kerberos tickets there are and until when, but none of them."""
    roots = scene.roots
    # The host's own /tmp: a service has another.
    caches = _ticket_caches(roots.proc / "1/root/tmp")
    return [
        *_show([roots.proc / "keys", roots.proc / "key-users"]),
        *_show(roots.etc / name for name in REQUEST_KEY),
        *(Command(("klist", "-c", f"FILE:{cache}"), absent_exit=1) for cache in caches),
        Command(("klist", "-k", "-t"), absent_exit=1),
    ]


def _show(paths: Iterable[Path]) -> list[Command]:
    """One child that copies those of the files that are there, each below its name."""
    names = [str(path) for path in paths if path.exists()]
    return [Command(("tail", "--verbose", "--lines=+1", *names))] if names else []


def _ticket_caches(directory: Path) -> list[Path]:
    """The newest plain files; anybody may put something else there, to be waited for."""
    try:
        found = [(path.lstat(), path) for path in directory.glob("krb5cc_*")]
    except OSError:  # not for this user, or gone meanwhile
        return []
    plain = [(status.st_mtime, path) for status, path in found if stat.S_ISREG(status.st_mode)]
    return [path for _, path in sorted(plain, reverse=True)[:MAX_TICKET_CACHES]]


def _packages() -> Command:
    """Those that are installed; both programs exit with 1 when one of them is not."""
    if shutil.which("dpkg-query"):
        return Command(("dpkg-query", "--show", *PACKAGES), absent_exit=1)
    return Command(("rpm", "--query", *RPM_PACKAGES), absent_exit=1)


def _serves_cifs(comm: Path) -> bool:
    try:
        name = comm.read_text(errors="replace").strip()
    except OSError:  # a process that has gone
        return False
    return name.startswith("cifsd") or name.rpartition("-")[2] in CIFS_THREADS


def _has_journal(scene: Scene) -> bool:
    places = (scene.roots.log / "journal", scene.roots.run / "log" / "journal")
    return shutil.which("journalctl") is not None and any(
        next(place.glob("*/*.journal"), None) for place in places
    )


def _journal(scene: Scene, *options: str) -> Command:
    """Of the incident's window, each line with the time of CLOCK_MONOTONIC, as events have it."""
    since = f"--since=@{scene.since_sec}"
    argv: Argv = ("journalctl", *options, since, "--output=short-monotonic", "--no-pager", "--all")
    return Command(argv)
