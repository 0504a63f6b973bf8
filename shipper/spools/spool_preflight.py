"""Whether bundles can be read from the spools and receipts be put beside them."""

from __future__ import annotations

from collections.abc import Iterator

from agent.storage.spool import Spool
from shipper.configuration.schema import ShipperConfig
from shipper.destinations.directory_preflight import check_writable
from shipper.destinations.finding import Finding
from shipper.spools.sources import find_sources

_OWN_REMEDY = "the shipper's user must be in the group that owns the spool; the agent makes it"
_INBOX_REMEDY = "the shipper's user must be in the group that owns the inbox (docs/relay.md)"


def check_spools(config: ShipperConfig) -> Iterator[Finding]:
    """The own spool and every inbox; a central host need not have a spool of its own."""
    if config.inbox is None:
        yield from check_spool(Spool(config.spool))
        return
    try:
        own, *inboxes = find_sources(config)
    except OSError as error:
        yield Finding("inbox", "failed", f"{config.inbox}: {error.strerror}", _INBOX_REMEDY)
        return
    if own.spool.batches.is_dir():
        yield from check_spool(own.spool)
    yield Finding("inbox", "ok", f"{config.inbox} has the folders of {len(inboxes)} hosts")
    for source in inboxes:
        wrong = [one for one in check_spool(source.spool, _INBOX_REMEDY) if one.state != "ok"]
        yield from wrong


def check_spool(spool: Spool, remedy: str = _OWN_REMEDY) -> Iterator[Finding]:
    """One of them."""
    try:
        pending = spool.pending()
        for bundle in pending[:1]:
            bundle.done.read_bytes()
    except OSError as error:
        reason = f"{spool.batches}: {error.strerror or error}"
        yield Finding("spool", "failed", reason, remedy)
        return
    if not spool.batches.is_dir():
        yield Finding("spool", "failed", f"{spool.batches} is not there", remedy)
        return
    yield Finding("spool", "ok", f"{spool.root} can be read; {len(pending)} bundles wait")
    yield check_writable("receipts", spool.batches, remedy)
