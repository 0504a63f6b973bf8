"""Words for terminals: the status, the result of a replay, progress."""

from __future__ import annotations

import sys
import time
from typing import Any

from agent.detection.description import duration
from agent.replay import ReplayResult
from agent.storage.free_space import MEGABYTE

STATES = {
    "starting": "starting",
    "waiting_for_cifs": "waiting: the cifs module is not loaded (it attaches when one mounts)",
    "loading": "loading the kernel program",
    "watching": "watching",
    "detached": "NOT watching: told to let go of cifs ('aod-agent attach' watches again)",
    "restarting": "NOT watching: starts again after a fault",
    "fault": "NOT watching",
}


class Progress:
    """A line on a terminal that counts up; silent elsewhere."""

    def __init__(self, unit: str) -> None:
        self._unit = unit
        self._last = 0.0

    def update(self, count: int) -> None:
        """Show ``count``, at most ten times a second."""
        now = time.monotonic()
        if sys.stderr.isatty() and now - self._last >= 0.1:
            self._last = now
            sys.stderr.write(f"\r{count:,} {self._unit} ")
            sys.stderr.flush()


class CaptureProgress:
    """A line on a terminal that follows a capture; silent elsewhere."""

    def __init__(self, duration_sec: float) -> None:
        self._duration_sec = duration_sec
        self._began: float | None = None
        self._first_count = 0

    def show(self, state: dict[str, Any]) -> None:
        """Show how far it is."""
        if state["state"] == "attaching":
            self._write("attaching to the kernel's SMB client")
            return
        if self._began is None:
            self._began, self._first_count = time.monotonic(), state["commands"]
        passed = time.monotonic() - self._began
        count = state["commands"] - self._first_count
        if passed < self._duration_sec:
            done = int(20 * passed / self._duration_sec)
            bar = "#" * done + "." * (20 - done)
            self._write(f"[{bar}] {passed:.0f} of {self._duration_sec:g} s, {count:,} SMB commands")
        else:
            self._write(f"collecting and packing, {count:,} SMB commands")

    def end(self) -> None:
        """Leave the line clean."""
        self._write("")

    def _write(self, text: str) -> None:
        if sys.stderr.isatty():
            sys.stderr.write(f"\r\033[K{text}")
            sys.stderr.flush()


def capture_text(state: dict[str, Any]) -> str:
    """Where the bundle of a capture is; the path alone on the first line."""
    source = state.get("source", {})
    if source.get("state", "watching") == "watching":
        return str(state["path"])
    reason = source.get("message") or STATES.get(source["state"], source["state"])
    return f"{state['path']}\nwithout SMB commands: {reason}"


def status_text(status: dict[str, Any]) -> str:
    """The status for people: what is watched, what was seen, what became of it."""
    source, events, bundles = status["source"], status["events"], status["bundles"]
    collections = status["collections"]
    lines = [
        f"aod-agent {status['version']}, pid {status['pid']}, up {_span(status['uptime_sec'])}",
        f"  state       {STATES.get(source['state'], source['state'])}",
        *_source_lines(source),
        f"  events      {events['dispatched']:,} seen in {events['batches']:,} batches, "
        f"{events.get('ring_full', 0):,} lost (ring full), "
        f"{events.get('bad_records', 0):,} bad records",
        *_table_lines(events),
        f"  incidents   {status['incidents']['opened']:,} "
        f"({status['incidents']['suppressed']:,} further triggers in them)",
        *_incident_lines(status["incidents"]["open"]),
        f"  collections {collections['collected']:,} done, {collections['running']:,} running, "
        f"{collections['failed']:,} failed, {collections['refused']:,} refused",
        *_failure_lines(collections),
        f"  bundles     {bundles['made']:,} made = {bundles['delivered']:,} delivered "
        f"+ {bundles['pending']:,} pending + {bundles['evicted']:,} evicted "
        f"+ {bundles['quarantined']:,} quarantined; "
        f"{bundles['total_bytes'] / 1e6:.1f} MB in {status['spool']}",
        *_disk_lines(status["disk"]),
        *_spool_lines(bundles, status["cleanup"]),
        *_component_lines(status["components"]),
    ]
    return "\n".join(lines)


def order_text(order: str, answer: dict[str, Any]) -> str:
    """What came of an order, for people."""
    if order != "reload":
        return f"aod-agent is {answer['state']}; see 'aod-agent status'"
    changed, waiting = answer["changed"], answer["needs_restart"]
    lines = ["loaded; " + (f"changed: {', '.join(changed)}" if changed else "nothing changed")]
    if waiting:
        lines.append(f"only a restart of the agent changes: {', '.join(waiting)}")
    return "\n".join(lines)


def replay_text(result: ReplayResult) -> str:
    """The result of a replay for people."""
    lines = [
        f"saw        {result.commands:,} SMB commands in {duration(result.duration_ns)}"
        + (f", {result.lost:,} more were lost when recording" if result.lost else ""),
        f"reported   {result.reported:,} slow or failed ones",
        f"incidents  {result.incidents:,} ({result.suppressed:,} further triggers in them)",
    ]
    for manifest in result.manifests:
        lines += [
            f"triggered  {manifest['anomaly']}: {manifest['reason']}",
            f"bundle     {manifest['archive']['file']} ({manifest['archive']['size']:,} bytes)",
        ]
    if result.failed_collections:
        lines.append(f"FAILED     {result.failed_collections} collections; see the log above")
    if result.refused:
        lines.append(f"REFUSED    {result.refused} collections: these incidents have no bundle")
    return "\n".join(lines)


def _source_lines(source: dict[str, Any]) -> list[str]:
    if source["state"] == "fault":
        return [f"  fault       {source['message']}", f"  remedy      {source['remedy']}"]
    if source["state"] != "watching":
        return []
    headers = source.get("headers", {})
    lines = [
        f"  kernel      {source.get('kernel')}, headers {headers.get('kind')} "
        f"({headers.get('path')}), bcc {source.get('bcc')}"
    ]
    return lines + [f"  without     {note}" for note in source.get("missing", [])]


def _table_lines(events: dict[str, int]) -> list[str]:
    """Commands of unknown duration: the kernel program missed their begin or their end."""
    unmatched, collisions = events.get("unmatched", 0), events.get("collisions", 0)
    if not unmatched and not collisions:
        return []
    return [
        f"  untimed     {unmatched:,} replies without their command, "
        f"{collisions:,} commands that took the place of an unanswered one"
    ]


def _incident_lines(incidents: list[dict[str, Any]]) -> list[str]:
    """Those that last."""
    return [
        f"    lasts: {incident['cause'] or 'this host'} since {incident['opened']}, "
        f"{', '.join(incident['rules'])}, {len(incident['bundles'])} bundles"
        for incident in incidents
    ]


def _failure_lines(part: dict[str, Any]) -> list[str]:
    return [f"    last failure: {part['last_failure']}"] if part["last_failure"] else []


def _disk_lines(disk: dict[str, Any]) -> list[str]:
    """The free space of the spool's file system, and whether it allows for bundles."""
    free, floor = disk["free_bytes"], disk["floor_bytes"]
    if free is None:
        return [f"  disk        the free space is unknown: {disk['fault']}"]
    text = f"  disk        {free / MEGABYTE:,.0f} MB free, floor {floor / MEGABYTE:,.0f} MB"
    if free >= floor:
        return [text]
    return [text, "    NO new bundles: make room there, or see cleanup.min_free_mb"]


def _spool_lines(bundles: dict[str, Any], cleanup: dict[str, Any]) -> list[str]:
    """What is wrong with the spool, and what cleaning it came to."""
    lines = []
    if bundles.get("fault"):
        lines.append(f"    the spool cannot be read: {bundles['fault']}")
    if any(cleanup.values()):
        lines.append(
            f"  cleanup     {cleanup['removed']:,} removed after shipping, "
            f"{cleanup['evicted']:,} evicted before it, {cleanup['folded']:,} folded into the "
            f"history, {cleanup['failed']:,} failures, "
            f"spool made anew {cleanup['spool_recreated']:,} times"
        )
    return lines + _failure_lines(cleanup)


def _component_lines(components: dict[str, dict[str, Any]]) -> list[str]:
    return [
        f"  {name}: {state['state']}, {state['restarts']} restarts, last: {state['last_fault']}"
        for name, state in components.items()
        if state["last_fault"]
    ]


def _span(seconds: float) -> str:
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if days:
        return f"{days:.0f} d {hours % 24:.0f} h"
    if hours:
        return f"{hours:.0f} h {minutes % 60:.0f} min"
    return f"{minutes:.0f} min" if minutes else f"{seconds:.0f} s"
