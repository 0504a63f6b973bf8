"""The report over a fleet: a row for each host, a table for people. Pure functions."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

FAILED = "failed"
UNREACHABLE = "unreachable"
DEGRADED = "degraded"
NOT_BEGUN = "not begun"
ABSENT = "absent"
HEALTHY = "healthy"
STATES = (FAILED, UNREACHABLE, DEGRADED, NOT_BEGUN, ABSENT, HEALTHY)

DONE = "done"
LOST = "the host was not reached, or lost on the way"
RUN_AGAIN = "when that is put right, run the playbook again"

COLUMNS = ("host", "state", "version", "kernel", "headers", "probes", "queue", "last upload")
GAP = "  "
NARROWEST = 60
_UNITS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))

# What a host says of itself, by type: anything else it says is not taken over.
_ANSWER: dict[str, type | tuple[type, ...]] = {
    "version": str,
    "previous_version": str,
    "kernel": str,
    "headers": str,
    "probes": str,
    "pending": int,
    "oldest_pending_sec": (int, float, type(None)),
    "last_upload": (str, type(None)),
    "last_upload_sec": (int, float, type(None)),
    "faults": list,
}

Row = dict[str, Any]


def outcome_of(variables: Mapping[str, Any]) -> str:
    """What became of a host in a roll-out: "done", or the failure in words; empty when its turn
    never came.

    The playbooks register the first task as ``aod_reached``, and end with ``aod_outcome``.
    """
    return str(variables.get("aod_outcome") or (LOST if "aod_reached" in variables else ""))


def row_of(host: str, variables: Mapping[str, Any], unsaid: str) -> Row:
    """How ``host`` is, from what the plays left in its ``variables``: its outcome, else
    ``unsaid``; and ``aod_answer``, the registered result of aod.fleet.status.
    """
    answer = variables.get("aod_answer", {})
    outcome = outcome_of(variables) or unsaid
    told = _told(answer.get("host"))
    row: Row = {"host": host, "state": HEALTHY, **told}
    faults = list(told.get("faults", []))
    if answer.get("unreachable"):
        row["state"], faults = UNREACHABLE, [_fault("ssh", answer.get("msg", ""), RUN_AGAIN)]
    elif not told:
        row["state"], faults = FAILED, [_fault("ssh", answer.get("msg", "no answer"), RUN_AGAIN)]
    elif outcome == NOT_BEGUN:
        row["state"] = NOT_BEGUN
    elif outcome != DONE:
        row["state"], faults = FAILED, [_fault("playbook", outcome, RUN_AGAIN), *faults]
    elif not row["version"]:
        row["state"] = ABSENT
    elif faults:
        row["state"] = DEGRADED
    return {**row, "faults": faults}


def rows_of(
    hosts: Iterable[str], hostvars: Mapping[str, Mapping[str, Any]], unsaid: str
) -> list[Row]:
    """All of them, trouble first, then by name."""
    rows = [row_of(host, hostvars[host], unsaid) for host in hosts]
    return sorted(rows, key=lambda row: (STATES.index(row["state"]), row["host"]))


def failure_of(row: Row) -> str:
    """Why the host failed or was not reached; empty when it was not so."""
    return str(row["faults"][0]["message"]) if row["state"] in (FAILED, UNREACHABLE) else ""


def summary(rows: Iterable[Row]) -> dict[str, int]:
    """How many hosts are in each state, those with none left out."""
    counts = Counter(row["state"] for row in rows)
    return {state: counts[state] for state in reversed(STATES) if counts[state]}


def table(rows: list[Row], width: int) -> str:
    """For a terminal of ``width`` columns: aligned rows, below each its faults with their cure."""
    cells = [{name: name for name in COLUMNS}, *map(_cells, rows)]
    widths = {name: max(len(cell[name]) for cell in cells) for name in COLUMNS}
    aligned = [
        GAP.join(cell[name].ljust(widths[name]) for name in COLUMNS).rstrip() for cell in cells
    ]
    lines = aligned[:1]
    for line, row in zip(aligned[1:], rows, strict=True):
        lines += [line, *_fault_lines(row["faults"], max(width, NARROWEST))]
    return "\n".join([*map(_plain, lines), "", summary_line(rows)])


def summary_line(rows: list[Row]) -> str:
    """Such as ``198 healthy, 1 degraded, 1 unreachable; 3 with headers of another kernel``."""
    line = ", ".join(f"{count} {state}" for state, count in summary(rows).items()) or "no hosts"
    fallbacks = sum(row.get("headers") == "fallback" for row in rows)
    return f"{line}; {fallbacks} with headers of another kernel" if fallbacks else line


def duration(seconds: float) -> str:
    """In the largest unit that fits: ``5 min``."""
    for size, unit in _UNITS:
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return "0 s"


def _told(answer: object) -> Row:
    """What a host answered; empty for no answer: a lie must not cost the others their report."""
    if not isinstance(answer, Mapping):
        return {}
    if not all(isinstance(answer.get(name, ()), kind) for name, kind in _ANSWER.items()):
        return {}
    if not all(_is_fault(fault) for fault in answer["faults"]):
        return {}
    return {name: answer[name] for name in _ANSWER}


def _is_fault(fault: object) -> bool:
    return isinstance(fault, Mapping) and all(
        isinstance(fault.get(name), str) for name in ("part", "message", "remedy")
    )


def _plain(line: str) -> str:
    """Without what a terminal would obey: a host's words are only to be read."""
    return "".join(one if one.isprintable() else "?" for one in line)


def _cells(row: Row) -> dict[str, str]:
    cells = {name: str(row.get(name) or "-") for name in COLUMNS}
    if "kernel" not in row:
        return cells
    oldest, uploaded = row["oldest_pending_sec"], row["last_upload_sec"]
    cells["queue"] = f"{row['pending']}" + (f", {duration(oldest)}" if oldest is not None else "")
    cells["last upload"] = "never" if uploaded is None else f"{duration(uploaded)} ago"
    return cells


def _fault_lines(faults: Iterable[Mapping[str, str]], width: int) -> list[str]:
    lines: list[str] = []
    for fault in faults:
        message = f"{fault['part']}: {fault['message']}"
        lines += textwrap.wrap(message, width, initial_indent="  ! ", subsequent_indent="    ")
        lines += textwrap.wrap(
            fault["remedy"], width, initial_indent="    > ", subsequent_indent="      "
        )
    return lines


def _fault(part: str, message: str, remedy: str) -> dict[str, str]:
    return {"part": part, "message": message, "remedy": remedy}
