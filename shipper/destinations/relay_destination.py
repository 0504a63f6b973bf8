"""A relay as destination: the inbox of a central host, which ships to the bucket."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from agent.service.stop_signal import StopSignal
from shipper.configuration.schema import RelayDestination
from shipper.destinations.delivery import Delivery
from shipper.destinations.document import Document
from shipper.destinations.finding import Finding
from shipper.destinations.object_key import safe_name
from shipper.destinations.relay_faults import (
    TOO_LARGE_REMEDY,
    SessionBroke,
    fault_of_refusal,
    printable,
)
from shipper.destinations.relay_session import RelaySession
from shipper.faults import BundleFault, DestinationFault, Fault

_RESEND = ("bundle", "missing")
# The relay reads the whole archive, and syncs its disk, before it answers.
_SLOWEST_BYTES_PER_SECOND = 10 << 20
_MIB = 1 << 20


class RelayInbox:
    """Delivers to the relay of ``config``; what it acknowledged is durable there.

    Safe for many threads; the relay takes one bundle of a host at a time, so they take turns.
    A heartbeat does not wait for its turn.
    """

    def __init__(
        self, config: RelayDestination, stop: StopSignal, bytes_per_second: float = 0
    ) -> None:
        self._config = config
        self._session = RelaySession(config, stop, bytes_per_second)
        self._turn = threading.Lock()
        self._unanswered: set[str] = set()

    @property
    def description(self) -> str:
        """The relay in words."""
        return f"relay {self._config.user}@{self._config.host}:{self._config.port}"

    def deliver(self, delivery: Delivery) -> str:
        """See `Destination`."""
        with delivery.open_archive():  # nothing else than the promised plain file is sent
            pass
        with self._turn:
            # Accepted, and only the answer was lost? Then nothing needs to be sent again.
            if delivery.id not in self._unanswered or self._claim(delivery) is not None:
                self._push_twice(delivery)
        return self.description

    def put_document(self, document: Document) -> None:
        """See `Destination`."""
        if document.kind == "heartbeat":
            self._ask("heartbeat", document.content)
            return
        with self._turn:
            self._ask(f"tombstone {document.name}", document.content)

    def abandon(self, note: Path) -> None:
        """Nothing to do: the relay forgets parts of bundles by itself."""

    def check(self) -> Iterator[Finding]:
        """See `shipper.destinations.finding.Preflight`: one connection tells all."""
        try:
            answer = self.ask_who_am_i()
        except Fault as fault:
            yield Finding("relay", "failed", fault.message, fault.remedy)
            return
        name, own = printable(str(answer.get("host"))), socket.gethostname()
        yield Finding("relay", "ok", f"knows this host's key, as {name}")
        if name != safe_name(own):
            yield Finding(
                "name",
                "warning",
                f"this host calls itself {own}: its bundles are filed under {name}",
                "on the central host, `aod-relay authorize --host` names it",
            )
        room = printable(str(answer.get("room_mb")))
        yield Finding("room", "ok", f"{room} MiB are free for this host")

    def ask_who_am_i(self) -> Mapping[str, Any]:
        """Who this host is to the relay (``host``), and the room it has there (``room_mb``,
        ``max_bundle_mb``); writes nothing. Raises Fault when a bundle would not get there now."""
        return self._ask("check", b"")

    def _push_twice(self, delivery: Delivery) -> None:
        self._push(delivery)
        if self._claim(delivery) is None:
            return
        # A part that an earlier push had left may have been bad: the relay has removed it.
        self._push(delivery)
        refusal = self._claim(delivery)
        if refusal is None:
            return
        message = printable(str(refusal.get("refused")))
        if refusal.get("kind") == "bundle":
            raise BundleFault(
                f"refused by the relay twice: {message}",
                "the bundle stays in the spool; compare it with the agent's log of that time",
            )
        raise DestinationFault(
            f"the relay lost it twice: {message}", "look at the inbox's disk on the central host"
        )

    def _push(self, delivery: Delivery) -> None:
        try:
            self._session.push(delivery.archive)
        except SessionBroke:
            # What the relay says while it ends a session does not always get here.
            limit_mb = self.ask_who_am_i().get("max_bundle_mb")
            if isinstance(limit_mb, int) and delivery.size > limit_mb * _MIB:
                raise DestinationFault(
                    f"the bundle is larger than the {limit_mb} MiB that the relay takes",
                    TOO_LARGE_REMEDY,
                ) from None
            raise

    def _claim(self, delivery: Delivery) -> Mapping[str, Any] | None:
        """None when the relay has accepted the bundle, its refusal when it wants it again."""
        patience = self._config.read_timeout_sec + delivery.size / _SLOWEST_BYTES_PER_SECOND
        self._unanswered.add(delivery.id)
        answer = self._session.ask(f"deliver {delivery.id}", delivery.manifest, patience)
        self._unanswered.discard(delivery.id)
        if "refused" in answer:
            if answer.get("kind") in _RESEND:
                return answer
            raise fault_of_refusal(answer)
        if (answer.get("accepted"), answer.get("sha256")) != (delivery.id, delivery.sha256):
            raise DestinationFault(
                "the relay acknowledged another bundle", "look at sshd's log on the central host"
            )
        return None

    def _ask(self, command: str, content: bytes) -> Mapping[str, Any]:
        answer = self._session.ask(command, content, self._config.read_timeout_sec)
        if "refused" in answer:
            raise fault_of_refusal(answer)
        return answer
