"""Turns what came into a bundle of the spool: whole and durable, or not at all; once, for good."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress

from agent.storage import durable_file
from agent.storage.spool import ARCHIVE, DONE, EVICTED, EVICTED_SHIPPED, SHIPPED, Spool
from shipper.relay.claim import Claim, parse_object, read_claim, read_object
from shipper.relay.host_folder import HostFolder
from shipper.relay.refusal import Refusal

_CHUNK = 1 << 20


def commit_bundle(folder: HostFolder, claim: Claim, manifest: bytes) -> None:
    """Accept the archive in `incoming` under its marker ``manifest``, byte for byte.

    On return both are durable; also when they were accepted before. To be called with the lock
    held: nobody else has the archive open for writing then. Raises Refusal and OSError.
    """
    known = _accepted_sha256(folder.spool, claim.id)
    if known is None:
        _verify(folder, claim)
        _publish(folder, claim.id, manifest)
        with suppress(OSError):  # for people alone
            folder.accepted_mark.touch(durable_file.FILE_MODE)
    elif known == claim.sha256:
        folder.partial(claim.id).unlink(missing_ok=True)
        durable_file.sync_directory(folder.spool.batches)
    else:
        raise Refusal(
            "denied",
            f"{claim.id} was accepted with another content: nothing accepted is ever changed",
            "find out how two bundles got one id; the relay keeps the first",
        )


def commit_tombstone(folder: HostFolder, bundle_id: str, document: bytes) -> None:
    """Note that the bundle will never come; nothing to note when it is here. As `commit_bundle`."""
    read_object(bundle_id, document)
    spool = folder.spool
    fates = (DONE, SHIPPED, EVICTED, EVICTED_SHIPPED)
    if any(os.path.lexists(spool.path(bundle_id, suffix)) for suffix in fates):
        durable_file.sync_directory(spool.batches)
    else:
        durable_file.publish_bytes(spool.path(bundle_id, EVICTED), document)
    folder.partial(bundle_id).unlink(missing_ok=True)


def keep_heartbeat(folder: HostFolder, document: bytes) -> None:
    """Replace the host's heartbeat. Raises Refusal and OSError."""
    parse_object(document)
    durable_file.publish_bytes(folder.heartbeat, document)


def _accepted_sha256(spool: Spool, bundle_id: str) -> str | None:
    """Of the archive that was accepted under this id, be it here or shipped already."""
    with suppress(FileNotFoundError):
        return read_claim(bundle_id, durable_file.read_plain(spool.path(bundle_id, DONE))).sha256
    with suppress(FileNotFoundError):
        receipt = parse_object(durable_file.read_plain(spool.path(bundle_id, SHIPPED)))
        return str(receipt.get("sha256"))
    if any(os.path.lexists(spool.path(bundle_id, fate)) for fate in (EVICTED, EVICTED_SHIPPED)):
        raise Refusal(
            "denied",
            f"{bundle_id} was given up: the relay has its tombstone",
            "nothing: the host that made it does not have it any more",
        )
    return None


def _verify(folder: HostFolder, claim: Claim) -> None:
    """Raises Refusal (missing or bundle); an archive that is not the promised one goes."""
    partial = folder.partial(claim.id)
    try:
        descriptor = durable_file.open_plain(partial)
    except FileNotFoundError:
        raise Refusal("missing", f"{partial.name} did not come", "send it again") from None
    except durable_file.UnsafeFileError:
        raise Refusal("denied", f"{partial.name} is not a plain file", "send a file") from None
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        problem = ""
        if status.st_nlink != 1:
            problem = "has another name too"
        elif status.st_size != claim.size:
            problem = f"has {status.st_size} bytes, the manifest says {claim.size}"
        else:
            digest = hashlib.sha256()
            while data := file.read(_CHUNK):
                digest.update(data)
            if digest.hexdigest() != claim.sha256:
                problem = "has another sha256 than the manifest says"
        if problem:
            partial.unlink()
            raise Refusal("bundle", f"{partial.name} {problem}", "send it again from its start")
        os.fchmod(descriptor, durable_file.FILE_MODE)
        os.fsync(descriptor)


def _publish(folder: HostFolder, bundle_id: str, manifest: bytes) -> None:
    """Archive, then marker. When the marker cannot be written the archive waits in `incoming`."""
    partial, archive = folder.partial(bundle_id), folder.spool.path(bundle_id, ARCHIVE)
    done = folder.spool.path(bundle_id, DONE)
    partial.rename(archive)
    try:
        durable_file.sync_directory(folder.incoming)
        durable_file.sync_directory(folder.spool.batches)
        durable_file.publish_bytes(done, manifest)
    except OSError:
        if not os.path.lexists(done):
            archive.rename(partial)
        raise
