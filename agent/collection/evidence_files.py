"""Writes the evidence frozen at the trigger as files: for NumPy, and for people."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from agent.configuration.smb_commands import command_name, errno_name
from agent.detection.anomaly import Aftermath, AnomalyAction, Evidence
from agent.storage.durable_file import read_plain, whole_file
from bpf import abi

WORST_EVENTS = 1_000
LABELS = "labels.jsonl"
CONNECTION_LOST = "connection lost"
EVIDENCE_FILES = (
    "events.npy",
    "worst_events.jsonl",
    "histograms.json",
    "inflight.jsonl",
    LABELS,
)
EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)

Record = dict[str, object]


def write_evidence(action: AnomalyAction, aftermath: Aftermath, directory: Path) -> None:
    """Write events.npy, worst_events.jsonl, histograms.json and inflight.jsonl to ``directory``,
    each whole at any time, in place of those of an earlier call.

    Raises OSError (a full disk, a directory that vanished).
    """
    evidence = action.evidence
    events = np.concatenate([without_bells(evidence.events), without_bells(aftermath.events)])
    with whole_file(directory / "events.npy") as file:
        write_npy(file, events)
    worst = worst_events(events)
    _write_lines(
        directory / "worst_events.jsonl",
        (event_record(event, evidence.wall_offset_ns) for event in worst),
    )
    unanswered = inflight_records(evidence.inflight, action.trigger.time_ns)
    _write_lines(directory / "inflight.jsonl", unanswered)
    with whole_file(directory / "histograms.json") as file:
        tables = histogram_periods(evidence, aftermath)
        file.write(json.dumps(tables, indent=1).encode() + b"\n")


def no_aftermath(action: AnomalyAction) -> Aftermath:
    """As far as the evidence of the trigger goes: nothing came after it."""
    return Aftermath(action.evidence.events[:0], action.evidence.histograms)


def write_labels(action: AnomalyAction, moments: Mapping[str, int], directory: Path) -> None:
    """Write labels.jsonl: when which phase began, by both clocks. ``moments``: nanoseconds of
    CLOCK_MONOTONIC of the collection's phases; those of a trace have no place in its time."""
    phases = {"incident": action.incident.opened_ns, "trigger": action.trigger.time_ns}
    if action.live:
        phases.update(moments)
    offset_ns = action.evidence.wall_offset_ns
    _write_lines(
        directory / LABELS,
        (
            {"t_mono_ns": at, "t_wall_ns": at + offset_ns, "phase": phase, "label": action.label}
            for phase, at in phases.items()
        ),
    )


def relabel(directory: Path, label: str) -> None:
    """Have labels.jsonl in ``directory`` carry ``label``. Raises OSError."""
    records = [json.loads(line) for line in read_plain(directory / LABELS).splitlines()]
    _write_lines(directory / LABELS, ({**record, "label": label} for record in records))


def without_bells(events: NDArray[np.void]) -> NDArray[np.void]:
    """The agent's own wake-up calls are not evidence."""
    told: NDArray[np.void] = events[events["tool"] != abi.TOOL_BELL]
    return told


def write_npy(file: IO[bytes], array: NDArray[Any]) -> None:
    """`numpy.save`, but through ``file``: numpy writes past it and can miss a full disk."""
    whole = np.ascontiguousarray(array)
    np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(whole))
    file.write(whole.view(np.uint8).data)


def worst_events(events: NDArray[np.void], limit: int = WORST_EVENTS) -> NDArray[np.void]:
    """The failed events, then the others, each slowest first; at most ``limit``."""
    slowest_first = np.iinfo(np.uint64).max - events["metric_latency_ns"]
    order = np.lexsort((slowest_first, events["retval"] == 0))
    return events[order[:limit]]


def event_record(event: np.void, wall_offset_ns: int) -> Record:
    """One event with names for its numbers; ``time`` is the wall clock's at the command's end."""
    end_ns = int(event["cmd_end_time_ns"])
    return {
        "time": iso_time(end_ns + wall_offset_ns),
        "cmd_end_time_ns": end_ns,
        "command": _what(event),
        "latency_ms": int(event["metric_latency_ns"]) / 1e6,
        "error": errno_name(int(event["retval"])),
        "retval": int(event["retval"]),
        "is_compounded": bool(event["is_compounded"]),
        **_origin(event),
    }


def inflight_records(inflight: NDArray[np.void], now_ns: int) -> list[Record]:
    """The commands that had no answer at ``now_ns``, oldest first."""
    waiting = np.sort(inflight[inflight["start_ns"] != 0], order="start_ns")
    return [
        {
            "command": command_name(int(slot["smbcommand"])),
            "age_ms": max(0, now_ns - int(slot["start_ns"])) / 1e6,
            "start_ns": int(slot["start_ns"]),
            "thread_id": int(slot["thread_id"]),
            "is_compounded": bool(slot["is_compounded"]),
            **_origin(slot),
        }
        for slot in waiting
    ]


def histogram_periods(evidence: Evidence, aftermath: Aftermath) -> Record:
    """Tables of the time ``before`` the trigger's window, if known, and ``during`` from then until
    the collection was done; without that, of ``all`` the time since the probes were attached.

    A program loaded anew in between counts from 0: then, too, there is only ``all``.
    """
    before, after = evidence.histograms_before, aftermath.histograms
    if before is None or (after < before).any():
        return {"all": histogram_tables(np.maximum(after, evidence.histograms))}
    return {
        "split": iso_time(evidence.before_ns + evidence.wall_offset_ns),
        "before": histogram_tables(before),
        "during": histogram_tables(after - before),
    }


def histogram_tables(histograms: NDArray[np.uint64]) -> dict[str, Record]:
    """By command name the total and the filled buckets; a bucket counts latencies below
    ``below_ns`` that the bucket before does not."""
    return {
        command_name(command): {
            "total": int(row.sum()),
            "buckets": [
                {"below_ns": 1 << int(bucket), "count": int(row[bucket])}
                for bucket in np.flatnonzero(row)
            ],
        }
        for command, row in enumerate(histograms)
        if row.any()
    }


def iso_time(wall_ns: int) -> str:
    """Nanoseconds since the epoch as ISO 8601 in UTC, with microseconds."""
    return (EPOCH + timedelta(microseconds=wall_ns // 1_000)).isoformat(timespec="microseconds")


def _what(event: np.void) -> str:
    """A lost connection is an event without a command; its session is the connection's number."""
    lost = event["tool"] & abi.TOOL_RECONNECT
    return CONNECTION_LOST if lost else command_name(int(event["smbcommand"]))


def _origin(record: np.void) -> Record:
    """Who sent it and where to, in the notation of /proc/fs/cifs/DebugData."""
    return {
        "pid": int(record["pid"]),
        "task": bytes(record["task"]).partition(b"\0")[0].decode("utf-8", "replace"),
        "session_id": hex(record["session_id"]),
        "tree_id": hex(record["tree_id"]),
        "mid": int(record["mid"]),
    }


def _write_lines(path: Path, records: Iterable[Record]) -> None:
    with whole_file(path) as file:
        for record in records:
            file.write(json.dumps(record).encode() + b"\n")
