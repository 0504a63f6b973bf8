"""One connection of a host: what it asks for, and the one line of JSON that it gets."""

from __future__ import annotations

import json
import os
import re
import select
import sys
import syslog
import time
from pathlib import Path

from shipper.relay.claim import read_claim
from shipper.relay.commit import commit_bundle, commit_tombstone, keep_heartbeat
from shipper.relay.host_folder import HostFolder
from shipper.relay.limits import MIB, Limits
from shipper.relay.protocol import PROTOCOL, UPLOAD
from shipper.relay.refusal import Refusal, refusal_of
from shipper.relay.upload import serve_upload

MAX_DOCUMENT = 1 << 20
DOCUMENT_PATIENCE_SEC = 30.0

_ULID = "[0-7][0-9A-HJKMNP-TV-Z]{25}"
_COMMAND = re.compile(rf"(deliver|tombstone) ({_ULID})|(heartbeat|check)")


class Session:
    """Answers one ``command`` (ssh's SSH_ORIGINAL_COMMAND) of ``host`` on the standard streams."""

    def __init__(self, inbox: Path, host: str, limits: Limits) -> None:
        self._folder = HostFolder(inbox, host)
        self._host = host
        self._limits = limits

    def serve(self, command: str) -> int:
        """The exit status: 0 accepted, 1 refused, else rsync's own."""
        try:
            return self._serve(command)
        except Refusal as refusal:
            self._refuse(refusal, command)
        except OSError as error:
            self._refuse(refusal_of(error), command)
        return 1

    def _serve(self, command: str) -> int:
        if command == UPLOAD:
            self._folder.prepare()
            return serve_upload(self._folder, self._limits)
        match = _COMMAND.fullmatch(command)
        if match is None:
            raise Refusal(
                "denied",
                "this key may hand in bundles, and nothing else",
                "on the central host, `aod-relay --help` says what is allowed",
            )
        self._folder.prepare()
        verb, bundle_id, plain_verb = match.groups()
        self._answer(self._check() if plain_verb == "check" else self._keep(verb, bundle_id))
        return 0

    def _keep(self, verb: str | None, bundle_id: str) -> dict[str, object]:
        if verb is None:
            keep_heartbeat(self._folder, self._document())
            return {"accepted": "heartbeat"}
        with self._folder.locked():
            document = self._document()
            if verb == "tombstone":
                self._limits.check(self._folder, self._folder.committed())
                commit_tombstone(self._folder, bundle_id, document)
                syslog.syslog(f"{self._host}: tombstone of {bundle_id}")
                return {"accepted": bundle_id}
            claim = read_claim(bundle_id, document)
            commit_bundle(self._folder, claim, document)
        syslog.syslog(f"{self._host}: accepted {bundle_id}, {claim.size} bytes")
        return {"accepted": bundle_id, "sha256": claim.sha256}

    def _document(self) -> bytes:
        return read_document(sys.stdin.fileno(), DOCUMENT_PATIENCE_SEC)

    def _check(self) -> dict[str, object]:
        used = self._folder.committed() + self._folder.under_way()
        self._limits.check(self._folder, used)
        return {
            "room_mb": self._limits.max_host_mb - used.size // MIB,
            "max_bundle_mb": self._limits.max_bundle_mb,
        }

    def _answer(self, answer: dict[str, object]) -> None:
        print(json.dumps({"protocol": PROTOCOL, "host": self._host, **answer}), flush=True)

    def _refuse(self, refusal: Refusal, command: str) -> None:
        told = f"{self._host}: refused {command[:200]!a}: {refusal.message}"
        syslog.syslog(syslog.LOG_WARNING, told)
        # Where an rsync listens, standard output belongs to its protocol.
        stream = sys.stderr if command.startswith("rsync") else sys.stdout
        document = {
            "protocol": PROTOCOL,
            "host": self._host,
            "refused": refusal.message,
            "kind": refusal.kind,
            "remedy": refusal.remedy,
        }
        print(json.dumps(document), file=stream, flush=True)


def read_document(source: int, patience_sec: float) -> bytes:
    """What comes from the descriptor ``source`` to its end; raises Refusal when it is too long or
    takes too long."""
    poll = select.poll()
    poll.register(source, select.POLLIN)
    deadline = time.monotonic() + patience_sec
    content = b""
    while poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
        data = os.read(source, 1 << 16)
        if not data:
            return content
        content += data
        if len(content) > MAX_DOCUMENT:
            raise Refusal(
                "denied",
                f"a document may have {MAX_DOCUMENT} bytes at most",
                "send the bundle's manifest",
            )
    raise Refusal(
        "busy", "the document did not come in time", "it passes when the network is better"
    )
