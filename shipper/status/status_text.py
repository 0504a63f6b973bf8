"""The status in words for a terminal."""

from __future__ import annotations

import socket

from agent.configuration.settings_document import printable
from shipper.status.shipper_state import IDLE, PAUSED, SHIPPING, WAITING, FaultNote, ShipperState
from shipper.status.status import ShipperStatus, SourceStatus, Waiting
from shipper.wording import (
    NOTHING,
    UNKNOWN,
    parse_time,
    since_text,
    size_text,
    span_text,
    table,
)

_STATES = {
    SHIPPING: "shipping",
    IDLE: "idle: everything that can be shipped is shipped",
    WAITING: "waiting: the first look comes after a random part of start_jitter_sec",
    PAUSED: "PAUSED: something is in the way of all bundles",
}
_HEADER = (
    "HOST",
    "PENDING",
    "BYTES",
    "OLDEST",
    "QUARANTINED",
    "LAST DELIVERY",
    "LAST HEARTBEAT",
)


def status_text(status: ShipperStatus) -> str:
    """A few lines: where to, what is going on, the queue, what became of the bundles."""
    lines = [
        f"spool          {status.total.spool}",
        f"destination    {status.destination}",
        f"shipper        {_running(status)}",
        *state_lines(status.state, status.time, running=status.running is not None),
        f"pending        {_queue(status)}",
        *_waiting_lines(status.total),
        *_fate_lines(status.total),
    ]
    others = status.sources[1:]
    if others:
        waiting = sum(1 for one in others if one.counts.pending)
        lines.append(f"hosts          {len(others)} with an inbox, {waiting} of them have bundles "
                     "pending (--hosts lists them)")  # fmt: skip
    return "\n".join(lines)


def hosts_text(status: ShipperStatus) -> str:
    """A table with a line for each spool."""
    return "\n".join(table(_HEADER, [_host_row(one, status.time) for one in status.sources]))


def state_lines(state: ShipperState, now: float, running: bool) -> list[str]:
    """The service's state and each fault with its remedy."""
    lines = []
    if running:
        text = _STATES.get(state.state) or printable(state.state)
        lines.append(f"state          {text}{_since(state.since, now)}")
        if state.state == PAUSED and state.next_try:
            lines.append(f"  next try     {since_text(state.next_try, now)}")
    for fault in state.faults:
        lines += _fault_lines(fault, now)
    return lines


def _fault_lines(fault: FaultNote, now: float) -> list[str]:
    return [
        f"fault          {printable(f'{fault.kind}: {fault.text}', 1000)}",
        f"  since        {since_text(fault.since, now)}",
        f"  remedy       {printable(fault.remedy, 1000)}",
    ]


def _running(status: ShipperStatus) -> str:
    if status.running is None:
        return "NOT RUNNING: nothing is shipped (systemctl start aod-shipper, or aod-shipper once)"
    return f"{status.running}{_since(status.state.started, status.time)}"


def _since(moment: str | None, now: float) -> str:
    seconds = parse_time(moment)
    return "" if seconds is None else f", since {moment} ({span_text(now - seconds)})"


def _queue(status: ShipperStatus) -> str:
    counts, rate = status.total.counts, status.state.bytes_per_sec
    text = f"{counts.pending} ({size_text(counts.pending_bytes)})"
    if not counts.pending:
        return text
    if status.eta_sec is None or rate is None:
        return f"{text}; shipped in: {UNKNOWN}"
    return f"{text}; shipped in: {span_text(status.eta_sec)} at {size_text(rate)}/s"


def _waiting_lines(total: SourceStatus) -> list[str]:
    oldest, newest = total.oldest_pending, total.newest_pending
    lines = [_waiting_line("oldest", oldest)] if oldest else []
    return [*lines, _waiting_line("newest", newest)] if newest and newest != oldest else lines


def _waiting_line(name: str, bundle: Waiting) -> str:
    return f"{name}         {bundle.id} ({span_text(bundle.age_sec)} old)"


def _fate_lines(total: SourceStatus) -> list[str]:
    counts = total.counts
    lines = [f"delivered      {counts.delivered}"]
    if counts.evicted:
        lines.append(
            f"evicted        {counts.evicted} (never shipped: the spool was full), "
            f"{total.tombstones} of which the store does not know"
        )
    if counts.quarantined:
        lines.append(
            f"quarantined    {counts.quarantined} (not what their manifests say; "
            "`aod-shipper why ID` tells more)"
        )
    if counts.fault:
        lines.append(f"NO COUNTS      {counts.fault}")
    if total.last_delivery is not None:
        receipt = total.last_delivery
        text = f"{receipt.get('shipped_at')} {receipt.get('key')}"
        lines.append(f"last delivery  {printable(text, 500)}")
    return lines


def _host_row(one: SourceStatus, now: float) -> list[str]:
    counts, oldest, receipt = one.counts, one.oldest_pending, one.last_delivery
    name = one.host or f"{socket.gethostname()} (this host)"
    if counts.fault:
        return [name, UNKNOWN, *[NOTHING] * (len(_HEADER) - 2)]
    return [
        name,
        str(counts.pending),
        size_text(counts.pending_bytes),
        span_text(oldest.age_sec) if oldest else NOTHING,
        str(counts.quarantined),
        _ago(receipt.get("shipped_at") if receipt else None, now),
        _ago(one.last_heartbeat, now),
    ]


def _ago(moment: object, now: float) -> str:
    seconds = parse_time(moment)
    return NOTHING if seconds is None else f"{span_text(now - seconds)} ago"
