"""How much one host may put into the inbox."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from shipper.relay.host_folder import HostFolder, Usage
from shipper.relay.refusal import Refusal

MIB = 1 << 20

# Beyond any host's real backlog; bounds the inodes and the length of a listing.
MAX_FILES = 50_000
# A client sends one bundle at a time; each kill may leave a part of one.
MAX_PARTIALS = 64


@dataclass(frozen=True)
class Limits:
    """Quotas of one host, and the floor that all hosts leave free, in MiB."""

    max_host_mb: int = field(
        default=4096, metadata={"help": "what the host may have waiting here, in MiB"}
    )
    max_bundle_mb: int = field(
        default=512, metadata={"help": "the largest bundle it may send, in MiB"}
    )
    min_free_mb: int = field(
        default=1024, metadata={"help": "what stays free on the inbox's disk, in MiB"}
    )

    def check(self, folder: HostFolder, used: Usage) -> None:
        """Raises Refusal (full) when nothing more may be added to ``folder``."""
        if used.size >= self.max_host_mb * MIB:
            raise Refusal(
                "full",
                f"{folder.host} has {used.size // MIB} MiB at the relay, its quota is "
                f"{self.max_host_mb} MiB",
                "it passes when the relay has shipped; else raise --max-host-mb in this host's "
                "authorized_keys line",
            )
        if used.files >= MAX_FILES:
            raise Refusal(
                "full",
                f"{folder.host} has {used.files} files at the relay, the limit is {MAX_FILES}",
                "it passes when the relay has shipped: see aod-shipper status on the central host",
            )
        self._check_disk(folder)

    def _check_disk(self, folder: HostFolder) -> None:
        disk = os.statvfs(folder.root)
        free_mb = disk.f_bavail * disk.f_frsize // MIB
        if free_mb < self.min_free_mb:
            raise Refusal(
                "full",
                f"the relay's disk has {free_mb} MiB free, {self.min_free_mb} MiB stay free",
                "it passes when the relay has shipped; else make room on the central host",
            )
