"""The shipper as a service: one round after another, asleep in between."""

from __future__ import annotations

import logging

from agent.service.sd_notify import notify
from agent.service.stop_signal import StopSignal
from shipper.faults import BundleFault
from shipper.shipper import Outcome, Shipper, Summary
from shipper.spool_watch import SpoolWatch

_log = logging.getLogger("aod-shipper")


def serve(shipper: Shipper, watch: SpoolWatch, stop: StopSignal, scan_interval_sec: float) -> None:
    """Ship until ``stop``: at once what appears, every ``scan_interval_sec`` what stayed behind."""
    notify("READY=1")
    hindrance = ""
    while not stop.is_set():
        watch.arm()
        summary = shipper.ship_pending()
        notify(f"STATUS={_in_words(summary)}")
        hindrance = _log_change(hindrance, summary)
        watch.wait(scan_interval_sec)
    notify("STOPPING=1")


def log_outcome(outcome: Outcome) -> None:
    """One line for every bundle that arrived or is bad; the rest concerns the whole round."""
    fault = outcome.fault
    if isinstance(fault, BundleFault):
        _log.warning("%s stays: %s; remedy: %s", outcome.bundle_id, fault.message, fault.remedy)
    elif outcome.key is not None:
        _log.info("shipped %s (%d bytes) %s", outcome.bundle_id, outcome.size, outcome.key)


def _log_change(before: str, summary: Summary) -> str:
    """Tell once that a hindrance began or ended, however many rounds it lasts; the new one."""
    fault = summary.fault
    now = fault.message if fault is not None else ""
    if fault is not None and now != before:
        _log.warning("%d pending: %s; remedy: %s", summary.left, fault.message, fault.remedy)
    elif before and not now:
        _log.info("nothing is in the way any more")
    return now


def _in_words(summary: Summary) -> str:
    if summary.fault is not None:
        return f"{summary.left} pending; {summary.fault.message}; {summary.fault.remedy}"
    if summary.bad:
        return f"{len(summary.bad)} bad bundles stay in the spool"
    return "everything is shipped"
