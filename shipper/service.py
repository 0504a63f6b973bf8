"""The shipper as a service: one round after another, asleep in between."""

from __future__ import annotations

import contextlib
import logging

from agent.service.sd_notify import notify
from agent.service.stop_signal import StopSignal
from agent.storage.spool import Spool
from shipper.config_schema import ShipperConfig
from shipper.outcome import Outcome, Summary
from shipper.shipper import Shipper
from shipper.shipper_state import FaultNote, StateFile
from shipper.spool_lock import SpoolLock
from shipper.spool_watch import SpoolWatch

_log = logging.getLogger("aod-shipper")


def serve(shipper: Shipper, config: ShipperConfig, stop: StopSignal) -> None:
    """Ship until ``stop``: at once what appears, every ``scan_interval_sec`` what stayed behind.

    Only this writes the state file: a file of root, who runs ``once``, could not be replaced.
    Raises HostFault when another shipper has the spool.
    """
    batches = Spool(config.spool).batches
    state, watch = StateFile(batches), SpoolWatch(batches, stop.fd)
    known: list[FaultNote] = []
    with SpoolLock(batches) as lock, contextlib.closing(watch):
        notify("READY=1")
        while not stop.is_set():
            watch.arm()
            lock.take()  # the directory may be another one than last time
            summary = shipper.ship_pending()
            known = _tell(summary, known, state)
            watch.wait(config.scan_interval_sec)
    notify("STOPPING=1")


def log_outcome(outcome: Outcome) -> None:
    """One line for all that is delivered; what stays is told once a round is over."""
    if outcome.key is not None and outcome.fault is None:
        _log.info("shipped %s (%d bytes) %s", outcome.title, outcome.size, outcome.key)


def _tell(summary: Summary, known: list[FaultNote], state: StateFile) -> list[FaultNote]:
    """Tell manager, log and state file how it stands; the log only what is not ``known``."""
    notify(f"STATUS={_in_words(summary)}")
    notes = summary.notes()
    for note in notes:
        if not any(note.says_the_same(old) for old in known):
            _log.warning("%d pending: %s; remedy: %s", summary.left, note.text, note.remedy)
    if known and not notes:
        _log.info("nothing is in the way any more")
    # A note that cannot be written must not stop the shipping; the fault itself is reported.
    with contextlib.suppress(OSError):
        state.write(notes)
    return notes


def _in_words(summary: Summary) -> str:
    if summary.fault is not None:
        return f"{summary.left} pending; {summary.fault.message}; {summary.fault.remedy}"
    if summary.passed_over:
        return f"{len(summary.passed_over)} bundles stay in the spool"
    return "everything is shipped"
