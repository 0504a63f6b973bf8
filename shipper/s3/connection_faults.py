"""What is wrong on the way to a store, from what Python, urllib3 and botocore raise."""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Callable, Iterator
from typing import NamedTuple

from botocore.exceptions import (
    ConnectionClosedError,
    ConnectTimeoutError,
    ProxyConnectionError,
    ReadTimeoutError,
)
from urllib3.exceptions import NameResolutionError

from shipper.faults import DestinationFault, Fault, NetworkFault
from shipper.s3.words import StoreWords, printable

# X509_V_ERR_ of OpenSSL's x509_vfy.h.
_NOT_YET_VALID, _EXPIRED, _OTHER_HOST, _OTHER_ADDRESS = 9, 10, 62, 64
_NO_WAY = (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN)
_PLAIN_ANSWER = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE")


class _Meaning(NamedTuple):
    """Cause and cure, in braces: address, proxy; the first whose ``holds`` is true of one of the
    errors that caused each other."""

    holds: Callable[[BaseException], bool]
    kind: type[Fault]
    cause: str
    cure: str


def _certificate(*codes: int) -> Callable[[BaseException], bool]:
    return lambda error: (
        isinstance(error, ssl.SSLCertVerificationError)
        and (not codes or getattr(error, "verify_code", None) in codes)
    )


def _tls(*reasons: str) -> Callable[[BaseException], bool]:
    return lambda error: (
        isinstance(error, ssl.SSLError) and (not reasons or error.reason in reasons)
    )


def _other_host(error: BaseException) -> bool:
    """Found by OpenSSL or, where it is left to that, by urllib3."""
    return (
        _certificate(_OTHER_HOST, _OTHER_ADDRESS)(error)
        or type(error).__name__ == "CertificateError"
    )


def _is(*kinds: type[BaseException]) -> Callable[[BaseException], bool]:
    return lambda error: isinstance(error, kinds)


_REACHABLE = "check that the store runs there, and the firewalls between"
_CLOCKS = "renew it, or set this host's clock if that is wrong"
_NAME = "use the host name of the certificate in endpoint_url, or give the store another one"

_MEANINGS = (
    _Meaning(
        _is(ProxyConnectionError),
        NetworkFault,
        "the proxy {proxy} cannot be used",
        "check HTTPS_PROXY, HTTP_PROXY and NO_PROXY in the environment of aod-shipper",
    ),
    _Meaning(
        _certificate(_EXPIRED), DestinationFault, "the store's certificate has expired", _CLOCKS
    ),
    _Meaning(
        _certificate(_NOT_YET_VALID),
        DestinationFault,
        "the store's certificate is not valid yet",
        _CLOCKS,
    ),
    _Meaning(
        _other_host,
        DestinationFault,
        "the store's certificate is for another host than {address}",
        _NAME,
    ),
    _Meaning(
        _certificate(),
        DestinationFault,
        "certificate not trusted",
        "set ca_bundle to the CA that signed the store's certificate",
    ),
    _Meaning(
        _tls(*_PLAIN_ANSWER),
        DestinationFault,
        "no TLS is spoken at {address}",
        "use http in endpoint_url, or better, give the store a certificate",
    ),
    _Meaning(
        _is(ssl.SSLEOFError, ssl.SSLZeroReturnError),
        NetworkFault,
        "the connection was closed while TLS began",
        _REACHABLE,
    ),
    _Meaning(
        _tls(),
        DestinationFault,
        "no TLS connection",
        "see which TLS versions and ciphers the store offers",
    ),
    _Meaning(
        _is(NameResolutionError, socket.gaierror),
        NetworkFault,
        "the name of {address} is not resolved",
        "check endpoint_url, /etc/resolv.conf and the name server",
    ),
    _Meaning(
        _is(ConnectionRefusedError),
        NetworkFault,
        "refused: nothing listens at {address}",
        _REACHABLE,
    ),
    _Meaning(
        lambda error: isinstance(error, OSError) and error.errno in _NO_WAY,
        NetworkFault,
        "there is no way to {address}",
        "check this host's routes and the firewalls between",
    ),
    _Meaning(
        _is(ConnectTimeoutError),
        NetworkFault,
        "no connection to {address} in time",
        _REACHABLE + "; connect_timeout_sec is the limit",
    ),
    _Meaning(
        _is(ReadTimeoutError, TimeoutError),
        NetworkFault,
        "silent: the store at {address} does not go on",
        "see how the store does; read_timeout_sec is the limit",
    ),
    _Meaning(
        _is(ConnectionClosedError),
        NetworkFault,
        "the connection to {address} was closed without an answer",
        _REACHABLE + "; an http URL for a port that speaks TLS ends so as well",
    ),
)


def connection_fault(error: BaseException, store: StoreWords) -> Fault | None:
    """The fault for an error that says what was wrong with the connection; else None."""
    chain = list(_causes(error))
    for meaning in _MEANINGS:
        if any(meaning.holds(one) for one in chain):
            proxy = printable(str(getattr(error, "kwargs", {}).get("proxy_url", "")))
            cause = meaning.cause.format(address=store.address, proxy=proxy)
            return meaning.kind(f"{store.description}: {cause}{_detail(chain)}", meaning.cure)
    return None


def _detail(chain: list[BaseException]) -> str:
    """What OpenSSL or the kernel said of it."""
    for error in chain:
        if isinstance(error, ssl.SSLCertVerificationError) and hasattr(error, "verify_message"):
            return f" ({printable(error.verify_message)})"
        if isinstance(error, ssl.SSLError) and error.reason:
            return f" ({printable(error.reason)})"
    return ""


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """``error`` and what it was made from: botocore and urllib3 wrap in more than one way."""
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        one = waiting.pop(0)
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        wrapped = [*one.args, getattr(one, "reason", None), getattr(one, "kwargs", {}).get("error")]
        waiting += [inner for inner in wrapped if isinstance(inner, BaseException)]
        waiting += [one.__cause__, one.__context__]
