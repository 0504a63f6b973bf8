"""What can go wrong while shipping, sorted by who has to act."""

from __future__ import annotations

import errno
from typing import ClassVar


class Fault(Exception):  # noqa: N818 - the field's word; each kind is decided on, not only reported
    """One reason why a bundle did not arrive; ``remedy`` says what a person can do about it."""

    kind: ClassVar[str]

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy


class DestinationFault(Fault):
    """The store refuses until somebody acts: this bundle, or all."""

    kind = "destination"


class NetworkFault(Fault):
    """The store does not answer now: tried again with growing pauses."""

    kind = "network"


class HostFault(Fault):
    """This host hinders the shipper (permissions, a full or sick disk): it may pass."""

    kind = "host"


class BundleFault(Fault):
    """This one bundle is not what its manifest says; the others go on."""

    kind = "bundle"


_GROUP = "the shipper's user must be in the group that owns the spool"
_ROOM = "make room on the spool's file system"
_SPOOL_REMEDIES = {
    errno.EACCES: _GROUP,
    errno.EPERM: _GROUP,
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
    errno.EROFS: "mount it writable, or add it to ReadWritePaths of aod-shipper.service",
}


def spool_fault(what: str, error: OSError) -> HostFault:
    """The spool hinders the shipper: ``what`` says in which way."""
    remedy = _SPOOL_REMEDIES.get(error.errno or 0, "look at the spool's disk and the kernel log")
    return HostFault(f"the spool {what}: {error.strerror or error}", remedy)
