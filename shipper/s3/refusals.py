"""What a store's refusals mean, and their cure: the one table of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from time import time as wall_clock

from botocore.exceptions import ClientError

from shipper.faults import DestinationFault, Fault, NetworkFault
from shipper.s3.answers import error_code, error_message, http_headers, http_status
from shipper.s3.words import StoreWords, duration, printable


@dataclass(frozen=True)
class _Meaning:
    """Cause and cure; in braces: bucket, place, action, right, rights, region, skew."""

    cause: str
    cure: str
    kind: type[Fault] = DestinationFault


_POLICY = "`aod-shipper bucket-policy` prints what the store has to allow"
_NEW_KEY = (
    "check the credentials file and write a good key into it; restart aod-shipper if its unit "
    "loads that file"
)
_ROOM = "make room in the store, or raise its quota"
_DENIED = _Meaning(
    "denied: the key may not {action} under {place}",
    "allow {right} there (in all: {rights}), and see that the bucket exists; " + _POLICY,
)
_DENIED_KMS = _Meaning(
    "denied: the key may not {action} with the encryption key",
    "allow kms:GenerateDataKey and kms:Decrypt on that KMS key; " + _POLICY,
)
_NO_ENCRYPTION = _Meaning(
    "the store cannot encrypt as configured",
    "give the store a KMS, or take 'encryption' out of the configuration",
)
_KMS_KEY = _Meaning(
    "the encryption key cannot be used: {said}",
    "correct 'kms_key_id', and see that this key is enabled and in the bucket's region",
)
_CLOCK = _Meaning("clock is {skew} off", "set this host's clock (timedatectl, chrony)")
_REGION = _Meaning("wrong region: the bucket is in {region}", "set region: {region}")
_UNKNOWN_REGION = _Meaning(
    "wrong region or endpoint", "set region and endpoint_url to those of the bucket"
)
_DISK_FULL = _Meaning("disk full at the store", _ROOM)
_QUOTA = _Meaning("the quota of the bucket or its owner is used up", _ROOM)
_EXPIRED = _Meaning("the temporary credentials have expired", "renew them; " + _NEW_KEY)
_BAD_TOKEN = _Meaning(
    "bad key: the store does not accept its session token",
    "renew the temporary credentials; " + _NEW_KEY,
)
_PASSING = _Meaning("the store asks for a later try", "none is needed: tried again", NetworkFault)
_TROUBLE = _Meaning(
    "the store has trouble of its own", "tried again; the store's log tells more", NetworkFault
)
_OTHER = _Meaning("refused: {said}", "look the code up in the store's documentation")

_BY_CODE: Mapping[str, _Meaning] = {
    "AccessDenied": _DENIED,
    "AllAccessDisabled": _Meaning(
        "the provider has closed the bucket", "the bucket's owner has to have it opened again"
    ),
    "AccountProblem": _Meaning(
        "the provider has a problem with the bucket's account", "its owner has to settle it"
    ),
    "NoSuchBucket": _Meaning(
        "bucket {bucket} does not exist", "create the bucket, or correct 'bucket'"
    ),
    "InvalidBucketName": _Meaning("the store takes no such bucket name", "correct 'bucket'"),
    "InvalidAccessKeyId": _Meaning("bad key: the store does not know it", _NEW_KEY),
    # The Versity gateway's word for the same.
    "XAdminUserNotFound": _Meaning("bad key: the store does not know it", _NEW_KEY),
    "SignatureDoesNotMatch": _Meaning("bad key: its secret is not the store's", _NEW_KEY),
    "ExpiredToken": _EXPIRED,
    "TokenRefreshRequired": _EXPIRED,
    "InvalidToken": _BAD_TOKEN,
    "InvalidTokenId": _BAD_TOKEN,
    "RequestTimeTooSkewed": _CLOCK,
    "RequestExpired": _CLOCK,
    "XMinioStorageFull": _DISK_FULL,
    "InsufficientStorage": _DISK_FULL,
    "EntityTooLarge": _Meaning(
        "the archive is larger than the store takes", "raise the store's limit"
    ),
    "QuotaExceeded": _QUOTA,
    "XMinioAdminBucketQuotaExceeded": _QUOTA,
    "AuthorizationHeaderMalformed": _UNKNOWN_REGION,
    "IllegalLocationConstraintException": _UNKNOWN_REGION,
    "PermanentRedirect": _UNKNOWN_REGION,
    "MovedPermanently": _UNKNOWN_REGION,
    # They pass by themselves, although their HTTP status does not say so.
    "BadDigest": _PASSING,
    "ConditionalRequestConflict": _PASSING,
    "IncompleteBody": _PASSING,
    "NoSuchUpload": _PASSING,
    "OperationAborted": _PASSING,
    "RequestTimeout": _PASSING,
    "XAmzContentSHA256Mismatch": _PASSING,
}
_BY_STATUS: Mapping[int, _Meaning] = {
    301: _UNKNOWN_REGION,
    403: _DENIED,
    407: _Meaning(
        "the proxy wants a password",
        "write it into HTTPS_PROXY or HTTP_PROXY of aod-shipper's environment",
    ),
    429: _PASSING,
    501: _OTHER,
    505: _OTHER,
    507: _DISK_FULL,
}

_ACTION = re.compile(r"not authorized to perform:? ((?:s3|kms):\w+)")
# Further from the store's clock than this, S3 refuses, and not every store names the reason.
_TOLERATED_SKEW_SEC = 15 * 60


def refusal_fault(error: ClientError, store: StoreWords) -> Fault:
    """A refusal of ``store`` as the fault it stands for."""
    code, status = printable(error_code(error)), http_status(error)
    meaning = _meaning(error)
    action = _denied_action(error)
    words = {
        "bucket": store.bucket,
        "place": store.place,
        "action": action.removeprefix("s3:"),
        "right": action,
        "rights": ", ".join(store.rights),
        "region": _region(error),
        "skew": _skew_in_words(error),
        "said": printable(error_message(error)) or "without a reason",
    }
    origin = f"{code}, HTTP {status}" if code not in ("", str(status)) else f"HTTP {status}"
    message = f"{store.description}: {meaning.cause.format(**words)} ({origin})"
    return meaning.kind(message, meaning.cure.format(**words))


def is_known(error: ClientError) -> bool:
    """Whether the cause is known, and is not that this one request may not be made."""
    return _meaning(error) not in (_DENIED, _OTHER, _NO_ENCRYPTION)


def clock_skew_sec(headers: Mapping[str, str]) -> float | None:
    """How far this host's clock is ahead of the answer's Date, in seconds; negative if behind."""
    try:
        return wall_clock() - parsedate_to_datetime(headers["date"]).timestamp()
    except (KeyError, ValueError, TypeError):
        return None


def _meaning(error: ClientError) -> _Meaning:
    status = http_status(error)
    meaning = _BY_CODE.get(error_code(error)) or _BY_STATUS.get(status)
    if meaning is None:
        meaning = _TROUBLE if status >= 500 else _OTHER
    for refined, holds in _REFINED:
        if holds(error, meaning):
            return refined
    return meaning


def _is_skewed(error: ClientError, _: _Meaning) -> bool:
    skew = clock_skew_sec(http_headers(error)) or 0
    return http_status(error) == 403 and abs(skew) > _TOLERATED_SKEW_SEC


# What code and status alone do not tell.
_REFINED: tuple[tuple[_Meaning, Callable[[ClientError, _Meaning], bool]], ...] = (
    (_CLOCK, _is_skewed),
    (_REGION, lambda error, meaning: meaning is _UNKNOWN_REGION and bool(_region(error))),
    (
        _DENIED_KMS,
        lambda error, meaning: meaning is _DENIED and _denied_action(error).startswith("kms:"),
    ),
    (_KMS_KEY, lambda error, _: error_code(error).lower().startswith("kms")),
    (
        _DISK_FULL,
        lambda error, _: http_status(error) >= 500 and "no space left" in error_message(error),
    ),
    (
        _NO_ENCRYPTION,
        lambda error, _: http_status(error) == 501 and "encryption" in error_message(error).lower(),
    ),
)


def _denied_action(error: ClientError) -> str:
    """AWS says what was denied; of the others it is known what was asked for."""
    said = _ACTION.search(error_message(error))
    if said:
        return said[1]
    aborts = error.operation_name == "AbortMultipartUpload"
    return "s3:AbortMultipartUpload" if aborts else "s3:PutObject"


def _region(error: ClientError) -> str:
    named = http_headers(error).get("x-amz-bucket-region") or error.response["Error"].get("Region")
    return printable(str(named or ""))


def _skew_in_words(error: ClientError) -> str:
    skew = clock_skew_sec(http_headers(error))
    if skew is None:
        return "more than the store allows"
    return duration(abs(skew))
