"""Every way in which an S3 store or the way to it fails, as a fault with its remedy."""

from __future__ import annotations

from collections.abc import Mapping

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    HTTPClientError,
    NoCredentialsError,
    PartialCredentialsError,
    SSLError,
)
from botocore.exceptions import ConnectionError as BotoConnectionError

from shipper.faults import DestinationFault, Fault, NetworkFault

_RESTART = "restart aod-shipper if its unit loads them"
_OTHER_KEY = f"check the credentials file: the store does not accept this key; {_RESTART}"
_RENEW = f"renew the temporary credentials; {_RESTART}"
_ROOM = "make room in the store or raise its quota"
_REGION = "set region and endpoint_url to those of the bucket"

# Error codes for which somebody has to act, and what to do.
REMEDIES: Mapping[str, str] = {
    "AccessDenied": "allow s3:PutObject and s3:AbortMultipartUpload on the bucket to this key",
    "AllAccessDisabled": "the bucket's owner has to open the bucket again",
    "AccountProblem": "the bucket's owner has to settle it with the provider",
    "NoSuchBucket": "create the bucket, or correct 'bucket' in the configuration",
    "InvalidBucketName": "correct 'bucket' in the configuration",
    "InvalidAccessKeyId": _OTHER_KEY,
    "SignatureDoesNotMatch": _OTHER_KEY,
    "XAdminUserNotFound": _OTHER_KEY,  # the Versity gateway's InvalidAccessKeyId
    "ExpiredToken": _RENEW,
    "InvalidToken": _RENEW,
    "InvalidTokenId": _RENEW,
    "TokenRefreshRequired": _RENEW,
    "RequestTimeTooSkewed": "set this host's clock (timedatectl, chrony)",
    "XMinioStorageFull": _ROOM,
    "QuotaExceeded": _ROOM,
    "XMinioAdminBucketQuotaExceeded": _ROOM,
    "AuthorizationHeaderMalformed": _REGION,
    "PermanentRedirect": _REGION,
    "MovedPermanently": _REGION,
}

# Error codes that pass by themselves although their HTTP status does not say so.
TRANSIENT = frozenset(
    {
        "BadDigest",
        "ConditionalRequestConflict",
        "IncompleteBody",
        "OperationAborted",
        "RequestTimeout",
        "XAmzContentSHA256Mismatch",
    }
)

_INSUFFICIENT_STORAGE = 507
_LASTING_SERVER_ERRORS = {501, 505, _INSUFFICIENT_STORAGE}
_FORBIDDEN = 403
_TOO_MANY_REQUESTS = 429


def as_fault(error: Exception, store: str) -> Fault:
    """``error``, raised by boto3 while talking to ``store``, as the fault it stands for."""
    if isinstance(error, ClientError):
        return _answer_fault(error, store)
    if isinstance(error, SSLError) and "EOF" not in str(error):
        return DestinationFault(
            f"{store}: no trusted TLS connection ({_short(error)})",
            "set ca_bundle to the CA that signed the store's certificate, and check the scheme, "
            "host name and clock",
        )
    if isinstance(error, (HTTPClientError, BotoConnectionError)):
        return _connection_fault(error, store)
    if isinstance(error, (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError)):
        return DestinationFault(
            f"{store}: no credentials found",
            "write /etc/aod/s3-credentials and restart aod-shipper, whose unit loads it, or set "
            "credentials_file: `aod-shipper once` outside the unit needs that",
        )
    if isinstance(error, (BotoCoreError, ValueError)):
        return DestinationFault(f"{store}: {_short(error)}", "correct the configuration")
    return NetworkFault(
        f"{store}: its answer is not S3 ({type(error).__name__})",
        "check endpoint_url: a proxy or another server may be answering",
    )


def _answer_fault(error: ClientError, store: str) -> Fault:
    code = _printable(str(error.response.get("Error", {}).get("Code") or ""))
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    message = f"{store}: {code or 'refused'} (HTTP {status})"
    if code in REMEDIES:
        return DestinationFault(message, REMEDIES[code])
    if code in TRANSIENT or status == _TOO_MANY_REQUESTS:
        return NetworkFault(message, "the store asks for a later try")
    if status == _INSUFFICIENT_STORAGE:
        return DestinationFault(message, _ROOM)
    if status >= 500 and status not in _LASTING_SERVER_ERRORS:
        return NetworkFault(message, "the store has trouble of its own; its log tells more")
    if status == _FORBIDDEN:
        return DestinationFault(message, REMEDIES["AccessDenied"])
    return DestinationFault(message, "look the code up in the store's documentation")


def _connection_fault(error: HTTPClientError | BotoConnectionError, store: str) -> Fault:
    if type(error) is HTTPClientError:  # its text may quote a header, and a credential with it
        cause = type(error.kwargs.get("error")).__name__
        return NetworkFault(
            f"{store}: the request failed on this host ({cause})",
            "check that no credential has white space in it, and the way to the store",
        )
    return NetworkFault(
        f"{store}: {_short(error)}", "check that the store runs and that this host reaches it"
    )


def _short(error: Exception) -> str:
    return _printable(str(error).partition("\n")[0])


def _printable(text: str) -> str:
    """What a server said, fit for a log: no control characters, no novel."""
    return "".join(character if character.isprintable() else "?" for character in text)[:300]
