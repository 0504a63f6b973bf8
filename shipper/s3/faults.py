"""Every way in which a store or the way to it fails, as a fault with its cure."""

from __future__ import annotations

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    HTTPClientError,
    NoCredentialsError,
    PartialCredentialsError,
)
from botocore.exceptions import ConnectionError as BotoConnectionError

from shipper.faults import DestinationFault, Fault, NetworkFault
from shipper.s3.answers import NotAStoreError
from shipper.s3.connection_faults import connection_fault
from shipper.s3.refusals import refusal_fault
from shipper.s3.words import StoreWords, printable


def as_fault(error: Exception, store: StoreWords) -> Fault:
    """``error``, raised by botocore while talking to ``store``, as the fault it stands for."""
    if isinstance(error, ClientError):
        return refusal_fault(error, store)
    if isinstance(error, (HTTPClientError, BotoConnectionError)):
        return _way_fault(error, store)
    kind, cause, cure = _cause_on_this_host(error)
    return kind(f"{store.description}: {cause}", cure)


def _cause_on_this_host(error: Exception) -> tuple[type[Fault], str, str]:
    if isinstance(error, (NoCredentialsError, PartialCredentialsError)):
        return (
            DestinationFault,
            "no credentials found",
            "write /etc/aod/s3-credentials and restart aod-shipper, whose unit loads it, or set "
            "credentials_file: `aod-shipper once` outside the unit needs that",
        )
    if isinstance(error, CredentialRetrievalError):
        return (
            NetworkFault,
            f"{error.kwargs.get('provider')} hands out no credentials",
            "see that the instance's role, or what else hands them out, is there",
        )
    if isinstance(error, NotAStoreError):
        return (
            DestinationFault,
            f"accepted without naming the {error} that every S3 store names",
            "check endpoint_url: this is no S3 store",
        )
    if isinstance(error, OSError):
        return NetworkFault, _short(error), "see to it on this host"
    if isinstance(error, (BotoCoreError, ValueError)):
        return DestinationFault, _short(error), "correct the configuration"
    return (
        NetworkFault,
        f"its answer is not S3 ({type(error).__name__})",
        "check endpoint_url: a proxy or another server may be answering",
    )


def _way_fault(error: HTTPClientError | BotoConnectionError, store: StoreWords) -> Fault:
    inner = error.kwargs.get("error")
    if isinstance(inner, Fault):  # the archive could not be read while it was being sent
        return inner
    known = connection_fault(error, store)
    if known is not None:
        return known
    if type(error) is HTTPClientError:  # its text may quote a header, and a credential with it
        return NetworkFault(
            f"{store.description}: the request failed on this host ({type(inner).__name__})",
            "check that no credential has white space in it, and the way to the store",
        )
    return NetworkFault(
        f"{store.description}: {_short(error)}",
        "check that the store runs and that this host reaches it",
    )


def _short(error: Exception) -> str:
    return printable(str(error).partition("\n")[0])
