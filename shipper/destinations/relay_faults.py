"""What ssh, rsync and the relay say when they fail, told as faults with their remedies."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from shipper.faults import DestinationFault, Fault, HostFault, NetworkFault
from shipper.relay.protocol import PROTOCOL

_PASSES = ("full", "busy")
_SHOWN = 300

NO_IDENTITY = "the private key cannot be used"
IDENTITY_REMEDY = (
    "destination.identity_file must be a key without passphrase that the shipper's user can "
    "read: ssh-keygen -t ed25519 -N ''"
)
TOO_LARGE_REMEDY = (
    "raise --max-bundle-mb in this host's authorized_keys line, or let the agent collect less"
)
_AUTHORIZE = (
    "on the central host: aod-relay authorize --host NAME KEYFILE.pub >> "
    "/etc/aod/relay_authorized_keys"
)
_SAME_RELEASE = "install the same release of AOD Fleet here and on the central host"
_NO_RELAY = "what answers there is no aod-relay"
_NO_RELAY_REMEDY = (
    "this key's line in the central host's authorized_keys must be the one that aod-relay "
    "authorize prints"
)

# In this order: what ssh says last ("Host key verification failed") is not what was wrong.
_FAULTS: tuple[tuple[str, type[Fault], str, str], ...] = (
    (
        "REMOTE HOST IDENTIFICATION HAS CHANGED",
        DestinationFault,
        "the relay's host key is another than the known one",
        "find out why before anything is sent there; if the central host was made anew, put its "
        "new key into destination.known_hosts_file",
    ),
    (
        "host key is known for|Host key verification failed",
        DestinationFault,
        "the relay's host key is not known",
        "put the line from the central host's /etc/ssh/ssh_host_ed25519_key.pub, with its name "
        "(or [name]:port) before it, into destination.known_hosts_file",
    ),
    (
        "UNPROTECTED PRIVATE KEY FILE|bad permissions",
        HostFault,
        "the private key is open to others",
        "chmod 600 destination.identity_file; it belongs to the shipper's user",
    ),
    ("Load key .*", HostFault, NO_IDENTITY, IDENTITY_REMEDY),
    ("Permission denied", DestinationFault, "the relay does not accept this key", _AUTHORIZE),
    (
        "Could not resolve hostname.*",
        NetworkFault,
        "the relay's name is not resolved",
        "look at destination.host and this host's name service",
    ),
    (
        "Connection refused|No route to host|Network is unreachable|timed out|Connection reset"
        "|Connection closed|kex_exchange_identification.*|Broken pipe|not responding"
        "|banner exchange.*",
        NetworkFault,
        "the relay cannot be reached",
        "look at destination.host and port, the network, and sshd on the central host",
    ),
    (
        "File too large",
        DestinationFault,
        "the bundle is larger than the relay takes",
        TOO_LARGE_REMEDY,
    ),
    ("No space left on device|quota exceeded", NetworkFault, "the relay is full", "make room"),
    ("server sent .*", DestinationFault, _NO_RELAY, _NO_RELAY_REMEDY),
    (
        "@ERROR.*|configured to refuse.*|protocol version mismatch",
        DestinationFault,
        "the relay's rsync does not take this upload",
        _SAME_RELEASE,
    ),
    (
        "aod-relay: .*|command not found|No such file or directory",
        DestinationFault,
        "the relay is not set up",
        "on the central host, look at this host's authorized_keys line (docs/relay.md)",
    ),
)


class SessionBroke(NetworkFault):
    """A session ended, and neither end said why: the relay may know more when asked."""


def fault_of(errors: str) -> Fault:
    """The fault of a session that ended without an answer; ``errors`` is its standard error."""
    for pattern, kind, message, remedy in _FAULTS:
        if found := re.search(pattern, errors):
            return kind(f"{message}: {printable(found[0])}", remedy)
    said = printable(errors.partition("\n")[0]) or "without a word"
    return SessionBroke(
        f"the relay's session broke: {said}",
        "look at the network, and at sshd's log on the central host",
    )


def fault_of_refusal(answer: Mapping[str, Any]) -> Fault:
    """The fault of an answer that has ``refused`` in it."""
    kind = NetworkFault if answer.get("kind") in _PASSES else DestinationFault
    message = printable(str(answer.get("refused")))
    return kind(f"refused by the relay: {message}", printable(str(answer.get("remedy"))))


def find_answer(output: str) -> dict[str, Any] | None:
    """The relay's line of JSON in what a session wrote; raises DestinationFault when it comes from
    another release."""
    for line in output.splitlines():
        try:
            answer = json.loads(line) if line.startswith("{") else None
        except (ValueError, RecursionError):
            continue
        if isinstance(answer, dict) and "protocol" in answer:
            if answer["protocol"] != PROTOCOL:
                version = printable(str(answer["protocol"]))
                raise DestinationFault(
                    f"the relay speaks protocol {version}, this shipper {PROTOCOL}", _SAME_RELEASE
                )
            return answer
    return None


def no_relay(output: str) -> Fault:
    """Whoever answered, it was no relay."""
    said = printable(output) or "it says nothing"
    return DestinationFault(f"{_NO_RELAY}: {said}", _NO_RELAY_REMEDY)


def printable(text: str) -> str:
    """``text`` of another host for a message: short, and nothing that a terminal obeys."""
    shown = "".join(one if one.isprintable() else " " for one in text[:_SHOWN])
    return shown.strip()
