"""The status as Prometheus text exposition."""

from __future__ import annotations

from agent import __version__
from agent.metrics import FATES
from agent.prometheus_text import COUNTER, GAUGE, Metric, exposition, single
from shipper.faults import DestinationFault, HostFault, NetworkFault
from shipper.status.shipper_state import PAUSED, ShipperState
from shipper.status.status import ShipperStatus, SourceStatus
from shipper.wording import parse_time

# Of the faults that concern all bundles.
PAUSING_KINDS = (NetworkFault.kind, DestinationFault.kind, HostFault.kind)


def metrics_text(status: ShipperStatus) -> str:
    """``status`` in the text format; a pure function. Families without a sample are left out."""
    metrics = [*_service(status), *_bundles(status.total), *_hosts(status.sources[1:])]
    return exposition(metric for metric in metrics if metric.samples)


def _service(status: ShipperStatus) -> list[Metric]:
    state, running = status.state, status.running is not None
    holding_up = {fault.kind for fault in state.pause_faults} if state.state == PAUSED else set()
    paused = {kind: running and kind in holding_up for kind in PAUSING_KINDS}
    version = {state.version or __version__: 1}
    return [
        single("aod_shipper_up", GAUGE, "1: a shipper runs.", running),
        Metric("aod_shipper_info", GAUGE, "The shipper's version.", version, "version"),
        Metric(
            "aod_shipper_paused", GAUGE, "1: such a fault holds up all bundles.", paused, "fault"
        ),
        *_times(status),
        *_counters(state),
    ]


def _times(status: ShipperStatus) -> list[Metric]:
    receipt = status.total.last_delivery or {}
    success = (parse_time(status.state.last_success), parse_time(receipt.get("shipped_at")))
    return [
        _moment("aod_shipper_start_time_seconds", "When it began.", status.state.started),
        Metric(
            "aod_shipper_last_success_timestamp_seconds",
            GAUGE,
            "When a bundle was delivered last.",
            {"": max(known)} if (known := [one for one in success if one is not None]) else {},
        ),
    ]


def _counters(state: ShipperState) -> list[Metric]:
    """Of the service that wrote the state: they begin at 0 when it starts."""
    if state.started is None:
        return []
    text = "Size of the archives that were shipped."
    return [
        single("aod_shipper_shipped_bytes_total", COUNTER, text, state.shipped_bytes),
        Metric(
            "aod_shipper_failures_total",
            COUNTER,
            "Attempts that failed, by the fault's kind.",
            {**dict.fromkeys(PAUSING_KINDS, 0), **state.failures},
            "kind",
        ),
    ]


def _bundles(total: SourceStatus) -> list[Metric]:
    """Gauges, although three of the fates are final: a requeue takes one back."""
    counts, oldest = total.counts, total.oldest_pending
    readable = single(
        "aod_shipper_spool_readable",
        GAUGE,
        "0: the bundles cannot be counted, and are left out here.",
        not counts.fault,
    )
    if counts.fault:
        return [readable]
    by_fate = {fate: getattr(counts, fate) for fate in FATES}
    text = "Tombstones of which the store does not know yet."
    return [
        readable,
        single("aod_shipper_bundles_made", GAUGE, "The sum of aod_shipper_bundles.", counts.made),
        Metric("aod_shipper_bundles", GAUGE, "Bundles by what became of them.", by_fate, "fate"),
        single("aod_shipper_pending_bytes", GAUGE, "Size of the queue.", counts.pending_bytes),
        single(
            "aod_shipper_oldest_pending_age_seconds",
            GAUGE,
            "Age of the oldest bundle in the queue; 0: it is empty.",
            oldest.age_sec if oldest else 0,
        ),
        single("aod_shipper_pending_tombstones", GAUGE, text, total.tombstones),
    ]


def _hosts(inboxes: list[SourceStatus]) -> list[Metric]:
    """On a central host: a series for each host whose bundles can be counted."""
    readable = {one.host: one for one in inboxes if one.host and not one.counts.fault}
    heartbeats = {host: parse_time(one.last_heartbeat) for host, one in readable.items()}
    families: dict[str, tuple[str, dict[str, float]]] = {
        f"{fate}_bundles": (
            "Of that host, by what became of them.",
            {host: getattr(one.counts, fate) for host, one in readable.items()},
        )
        for fate in FATES
    }
    families |= {
        "pending_bytes": (
            "Size of that host's queue.",
            {host: one.counts.pending_bytes for host, one in readable.items()},
        ),
        "oldest_pending_age_seconds": (
            "Age of the oldest bundle in it; 0: it is empty.",
            {
                host: one.oldest_pending.age_sec if one.oldest_pending else 0
                for host, one in readable.items()
            },
        ),
        "last_heartbeat_timestamp_seconds": (
            "When that host was heard of last.",
            {host: moment for host, moment in heartbeats.items() if moment is not None},
        ),
    }
    return [
        Metric(f"aod_shipper_host_{name}", GAUGE, text, samples, "host")
        for name, (text, samples) in families.items()
    ]


def _moment(name: str, text: str, moment: str | None) -> Metric:
    seconds = parse_time(moment)
    return Metric(name, GAUGE, text, {} if seconds is None else {"": seconds})
