"""The quick actions: what is collected from the system when an anomaly is found, as data."""

from __future__ import annotations

from agent.collection import action_commands as run
from agent.collection.quick_action import Kind, QuickAction, Span, Wave

# In the order of volatility: what is gone soonest is started first.
QUICK_ACTIONS: tuple[QuickAction, ...] = (
    QuickAction(
        "debugdata",
        "debug_data.log",
        Kind.FILE,
        run.proc_file("fs", "cifs", "DebugData"),
        "sessions, credits and requests in flight as the kernel sees them now",
        Wave.VOLATILE,
    ),
    QuickAction(
        "stats",
        "cifsstats.log",
        Kind.FILE,
        run.proc_file("fs", "cifs", "Stats"),
        "commands, failures and reconnects by share since the mount",
        Wave.VOLATILE,
    ),
    QuickAction(
        "stacks",
        "stacks.log",
        Kind.FILE,
        run.stacks,
        "where in the kernel the processes concerned and the SMB threads wait",
        Wave.VOLATILE,
    ),
    QuickAction(
        "openfiles",
        "open_files.log",
        Kind.FILE,
        run.proc_file("fs", "cifs", "open_files"),
        "which files are open on the server, and by whom",
        Wave.VOLATILE,
    ),
    QuickAction(
        "sockets",
        "sockets.log",
        Kind.CMD,
        run.sockets,
        "retransmissions, round trip and queues of the connections: network or server",
        Wave.VOLATILE,
    ),
    QuickAction(
        "procstat",
        "procstat.jsonl",
        Kind.FILE,
        run.process_samples,
        "what the processes concerned did while it was collected: CPU, memory, I/O",
        Wave.VOLATILE,
        Span.COLLECTION,
    ),
    QuickAction(
        "netcapture",
        "packets.pcap",
        Kind.CMD,
        run.packets,
        "the SMB packets' beginnings; holds names, and data of unencrypted mounts",
        Wave.VOLATILE,
        Span.COLLECTION,
        timeout_sec=10,
        max_mb=8,
        text=False,
        by_default=False,
    ),
    QuickAction(
        "mounts",
        "mounts.log",
        Kind.FILE,
        run.of_host("mounts"),
        "servers, dialects and options of the mounts",
    ),
    QuickAction(
        "mountinfo",
        "mountinfo.log",
        Kind.FILE,
        run.of_host("mountinfo"),
        "which mount lies on which, with what propagation and device number",
    ),
    QuickAction(
        "dmesg",
        "dmesg.log",
        Kind.CMD,
        run.kernel_log,
        "what cifs.ko said: reconnects, timeouts, signature faults",
    ),
    QuickAction(
        "smbinfo",
        "smbinfo.log",
        Kind.CMD,
        run.file_queries,
        "whether the server answers one simple query for each file in use",
        timeout_sec=10,
    ),
    QuickAction(
        "journalctl",
        "journalctl.log",
        Kind.CMD,
        run.journal,
        "what else happened on the host at that time: network, services, memory",
    ),
    QuickAction(
        "syslogs",
        "syslogs.log",
        Kind.FILE,
        run.syslogs,
        "the same for hosts that log to files",
    ),
    QuickAction(
        "keyrings",
        "keyrings.log",
        Kind.CMD,
        run.key_state,
        "which keys and Kerberos tickets there are, and which have expired",
    ),
    QuickAction(
        "osinfo",
        "osinfo.log",
        Kind.CMD,
        run.system_facts,
        "release, kernel, cifs module and its settings, tools, reboots",
    ),
)
