"""Puts bundles back into the queue: out of quarantine, or to be delivered once more."""

from __future__ import annotations

import os
from dataclasses import dataclass

from agent.storage import durable_file
from agent.storage.spool import ARCHIVE, DONE, EVICTED, QUARANTINED, SHIPPED
from shipper.inspection.bundle_finder import FoundBundle
from shipper.service.waking import no_permission


@dataclass(frozen=True)
class Requeued:
    """What came of one bundle: ``refused`` says why it is not pending now, None that it is."""

    id: str
    text: str
    refused: str | None = None


def requeue(bundle: FoundBundle, delivered: bool) -> Requeued:
    """Take the quarantine mark back or, if ``delivered``, the receipt of a bundle that is still
    here; safe to repeat. Raises HostFault when this user may not.

    Shipping it again is harmless: the same bytes go to the same keys.
    """
    whole = {ARCHIVE, DONE} <= bundle.parts
    if SHIPPED in bundle.parts and not delivered:
        return _refuse(bundle, "it is delivered: to ship it again takes --delivered")
    if EVICTED in bundle.parts:
        return _refuse(bundle, "it was evicted: there is nothing left to ship")
    if not whole:
        return _refuse(bundle, "its archive is no longer here" if SHIPPED in bundle.parts
                       else "it is not finished")  # fmt: skip
    try:
        if SHIPPED in bundle.parts and not _take_receipt_back(bundle):
            return _refuse(bundle, "its archive was cleaned up just now")
        bundle.source.spool.lift_quarantine(bundle.id)
    except OSError as error:
        path = bundle.source.spool.batches
        raise no_permission(f"{bundle.id} cannot be requeued in {path}", error) from error
    if not bundle.parts & {SHIPPED, QUARANTINED}:
        return Requeued(bundle.id, "was pending already")
    return Requeued(bundle.id, "is pending again")


def _refuse(bundle: FoundBundle, reason: str) -> Requeued:
    return Requeued(bundle.id, f"stays as it is: {reason}", reason)


def _take_receipt_back(bundle: FoundBundle) -> bool:
    """Whether that made it pending. If the agent is just cleaning it up, because of that receipt,
    the receipt comes back: without it the bundle would count nowhere."""
    spool = bundle.source.spool
    path = spool.path(bundle.id, SHIPPED)
    receipt = durable_file.read_plain(path)
    path.unlink()
    durable_file.sync_directory(spool.batches)
    if all(os.path.lexists(spool.path(bundle.id, suffix)) for suffix in (DONE, ARCHIVE)):
        return True
    durable_file.publish_bytes(path, receipt)
    return False
