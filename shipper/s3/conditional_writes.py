"""Writing an object only if there is none: where the store can, and what it means if there is."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Mapping

from botocore.exceptions import ClientError

from shipper.destinations.document import JSON_TYPE
from shipper.s3.answers import error_code, http_status, named
from shipper.s3.client import Answer, S3Client
from shipper.s3.refusals import is_known

_ONLY_NEW = {"IfNoneMatch": "*"}
_EXISTS = 412
# A store that does not know the condition says so, if it says anything, with one of these.
_UNKNOWN_CONDITION = (400, 501)

_PROBE = {
    "probe": "aod-shipper tried here whether this store can refuse to overwrite; the next "
    "heartbeat of this host takes its place"
}

_log = logging.getLogger("aod-shipper")

# Sends one request with the further arguments that it is given.
Send = Callable[[Mapping[str, str]], Answer]


class ConditionalWrites:
    """Whether a store refuses to overwrite when asked to (``If-None-Match: *``): tried out once.

    Some stores answer 501, others ignore the condition, so nothing but trying tells. The trial is
    a PutObject of ``probe`` (bucket, key and the like) on a key that may be overwritten at any
    time; where an object lies there and conditions work, it writes nothing. Many threads.
    """

    def __init__(self, probe: Mapping[str, object]) -> None:
        self._probe = {**probe, "Body": json.dumps(_PROBE).encode(), "ContentType": JSON_TYPE}
        self._lock = threading.Lock()
        self._known: bool | None = None
        self._told = False

    def forget(self) -> None:
        """Try it out anew at the next write: the key or its rights may be others now."""
        self._known = None

    def write(self, client: S3Client, send: Send, is_same: Callable[[], bool]) -> None:
        """Call ``send``, so that the store holds the object once on return.

        When something is there already, ``is_same`` has to prove that it is the same. What is not
        proven is overwritten (docs/decisions/0011-already-there.md).
        """
        unknown = False
        if self.work(client):
            try:
                named(send(_ONLY_NEW), "ETag")
                return
            except ClientError as error:
                exists, unknown = http_status(error) == _EXISTS, _knows_no_condition(error)
                if not exists and not unknown:
                    raise
            if exists and is_same():
                return
        named(send({}), "ETag")
        if unknown:
            self._known = False

    def work(self, client: S3Client) -> bool:
        """Whether conditions have an effect."""
        with self._lock:
            if self._known is None:
                self._known = self._try_out(client)
            return self._known

    def _try_out(self, client: S3Client) -> bool:
        try:
            for _ in range(2):  # where nothing lay, the first one writes and the second is refused
                named(client.put_object(**self._probe, **_ONLY_NEW), "ETag")
        except ClientError as error:
            if http_status(error) == _EXISTS:
                return True
            if is_known(error):
                raise
            self._tell(f"{error_code(error)}, HTTP {http_status(error)}")
        else:
            self._tell("it ignores the condition")
        return False

    def _tell(self, why: str) -> None:
        if not self._told:
            self._told = True
            _log.info(
                "the store does not show that it can refuse to overwrite (%s): a repeated upload "
                "writes the same bytes again",
                why,
            )


def _knows_no_condition(error: ClientError) -> bool:
    return http_status(error) in _UNKNOWN_CONDITION and not is_known(error)
