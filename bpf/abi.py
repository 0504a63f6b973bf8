"""The structs of ``smb.h`` as NumPy dtypes, and the check that both sides agree."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

COMMANDS = 32
BUCKETS = 64
ERRNOS = 512
INFLIGHT_SLOTS = 16_384
TICKS = 1_024
TICK_SHIFT = 27
CONNECTIONS = 64
TASK_LENGTH = 16
HOSTNAME_LENGTH = 56

TOOL_SMBSLOWER = 1
TOOL_SMBIOSNOOP = 2
TOOL_RECONNECT = 4
TOOL_BELL = 8
NO_COMMAND = 0xFFFF

EVENT = np.dtype(
    [
        ("cmd_end_time_ns", np.uint64),
        ("session_id", np.uint64),
        ("mid", np.uint64),
        ("metric_latency_ns", np.uint64),
        ("pid", np.uint32),
        ("tree_id", np.uint32),
        ("retval", np.int32),
        ("smbcommand", np.uint16),
        ("tool", np.uint8),
        ("is_compounded", np.uint8),
        ("task", f"S{TASK_LENGTH}"),
    ]
)

INFLIGHT = np.dtype(
    [
        ("start_ns", np.uint64),
        ("session_id", np.uint64),
        ("mid", np.uint64),
        ("pid", np.uint32),
        ("thread_id", np.uint32),
        ("tree_id", np.uint32),
        ("smbcommand", np.uint16),
        ("is_compounded", np.uint8),
        ("reserved", np.uint8),
        ("task", f"S{TASK_LENGTH}"),
        ("reserved_tail", np.uint64),
    ]
)

SETTINGS = np.dtype(
    [
        ("slow_ns", np.uint64, (COMMANDS,)),
        ("error_tracked", np.uint8, (ERRNOS,)),
        ("reconnects", np.uint32),
        ("bell", np.uint32),
    ]
)
HISTOGRAM = np.dtype([("bucket", np.uint64, (BUCKETS,))])
COUNTERS = np.dtype(
    [
        ("events", np.uint64),
        ("ring_full", np.uint64),
        ("unmatched", np.uint64),
        ("collisions", np.uint64),
    ]
)
ACTIVITY = np.dtype([("tick", np.uint64), ("commands", np.uint32, (COMMANDS,))])
CONNECTION = np.dtype([("conn_id", np.uint64), ("hostname", f"S{HOSTNAME_LENGTH}")])

STRUCTS: Mapping[str, np.dtype[np.void]] = {
    "smb_event": EVENT,
    "smb_inflight": INFLIGHT,
    "smb_settings": SETTINGS,
    "smb_histogram": HISTOGRAM,
    "smb_counters": COUNTERS,
    "smb_activity": ACTIVITY,
    "smb_connection": CONNECTION,
}

Layout = dict[str, dict[str, int]]


class AbiMismatchError(Exception):
    """The kernel program and the agent disagree about a struct: they are of different releases."""


def layout() -> Layout:
    """Size and field offsets in bytes by struct, as this module has them.

    The key ``""`` of a struct holds its size.
    """
    return {
        name: {"": dtype.itemsize, **{field: int(entry[1]) for field, entry in fields(dtype)}}
        for name, dtype in STRUCTS.items()
    }


def check_layout(compiled: Layout) -> None:
    """Raise `AbiMismatchError` naming every member whose place differs from ``compiled``."""
    expected = layout()
    differences = [
        f"{struct}.{member or 'sizeof'}: {compiled.get(struct, {}).get(member)} != {place}"
        for struct, members in expected.items()
        for member, place in members.items()
        if compiled.get(struct, {}).get(member) != place
    ]
    if differences:
        raise AbiMismatchError("; ".join(differences))


def fields(dtype: np.dtype[np.void]) -> list[tuple[str, tuple[np.dtype[np.void], int]]]:
    """Names of a struct's members with their (dtype, offset), in order."""
    assert dtype.fields is not None  # noqa: S101 - structured by construction
    return [(name, dtype.fields[name][:2]) for name in dtype.names or ()]
