"""The audit trail: what the agent did, as structured entries of the systemd journal."""

from __future__ import annotations

import logging
import socket
import struct
from pathlib import Path

from agent.redaction.redactor import Redactor
from agent.service.audit_events import AUDIT_EVENTS

JOURNAL_SOCKET = Path("/run/systemd/journal/socket")

log = logging.getLogger("aod.audit")


def encode_entry(fields: dict[str, str]) -> bytes:
    """The journal's native protocol: ``KEY=value`` lines, with lengths where a value has newlines.

    Source: systemd, "Native Journal Protocol".
    """
    parts = []
    for key, value in fields.items():
        data = value.encode("utf-8", "replace")
        if b"\n" in data:
            parts.append(key.encode() + b"\n" + struct.pack("<Q", len(data)) + data + b"\n")
        else:
            parts.append(key.encode() + b"=" + data + b"\n")
    return b"".join(parts)


class Audit:
    """Records events; thread-safe, never raises: a full journal must not stop a collection."""

    def __init__(self, enabled: bool = True, journal: Path = JOURNAL_SOCKET) -> None:
        self.enabled = enabled
        self._journal = journal

    def record(self, event: str, message: str, **details: object) -> None:
        """Write one entry, without secrets: ``AOD_EVENT=event`` and each detail as ``AOD_<NAME>``;
        both are listed in `agent.service.audit_events`."""
        if not self.enabled:
            return
        priority = AUDIT_EVENTS[event].priority
        fields = {"MESSAGE": message, "PRIORITY": str(priority), "SYSLOG_IDENTIFIER": "aod-agent"}
        fields["AOD_EVENT"] = event
        fields.update({f"AOD_{name.upper()}": str(value) for name, value in details.items()})
        # A label is a person's words, and an error tells names of files.
        redactor = Redactor()
        fields = {name: redactor.redact_text(value)[0] for name, value in fields.items()}
        if not self._to_journal(encode_entry(fields)):
            log.info("%s %s", message, {k: v for k, v in fields.items() if k.startswith("AOD_")})

    def _to_journal(self, entry: bytes) -> bool:
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as channel:
                channel.sendto(entry, str(self._journal))
        except OSError:  # no journal on this host, or its queue is full: the log line remains
            return False
        return True
