"""Whether bundles can be delivered into a bucket: tried out step by step, without a trace."""

from __future__ import annotations

import base64
import socket
import ssl
from collections.abc import Iterator, Mapping
from urllib.parse import SplitResult, urlsplit
from urllib.request import getproxies, proxy_bypass

from botocore.exceptions import ClientError, ConnectTimeoutError

from shipper.configuration.schema import S3Destination
from shipper.destinations.finding import Finding
from shipper.faults import Fault
from shipper.s3.answers import STORE_ERRORS, error_code, http_headers, http_status, named
from shipper.s3.client import S3Client, make_client, trusted_certificates
from shipper.s3.connection_faults import connection_fault
from shipper.s3.credentials import credentials_source
from shipper.s3.faults import as_fault
from shipper.s3.refusals import clock_skew_sec
from shipper.s3.words import StoreWords, duration

_TRIAL = b"aod-shipper tries out whether it may write here"
# No MD5 of the trial: a store that does not refuse the write before has to refuse it for that.
_WRONG_MD5 = base64.b64encode(bytes(16)).decode()
_IN_CLEAR = Finding(
    "TLS",
    "warning",
    "not used: bundles go over the network in clear",
    "use https in endpoint_url unless the store is on this host",
)
_CLOCK_WARNING_SEC = 60
_EXISTS = 412


class S3Preflight:
    """The steps from the key to the first byte in the bucket.

    The right to put is tried with an upload in parts that is never completed, on ``key``, a key
    of this host's: nobody sees it, nothing is overwritten, and no right to read is needed.
    """

    def __init__(
        self,
        config: S3Destination,
        key: str,
        attributes: Mapping[str, object],
        words: StoreWords,
    ) -> None:
        self._config = config
        self._place = {"Bucket": config.bucket, "Key": key}
        self._attributes = attributes
        self._words = words

    def check(self) -> Iterator[Finding]:
        """See `shipper.destinations.finding.Preflight`."""
        step = "credentials"
        try:
            yield Finding(step, "ok", credentials_source(self._config))
            step = "settings"
            client = make_client(self._config)
        except (Fault, *STORE_ERRORS) as error:
            yield self._failed(step, error)
            return
        connection = list(self._check_connection(urlsplit(client.meta.endpoint_url)))
        yield from connection
        if all(finding.state != "failed" for finding in connection):
            yield from self._check_rights(client)

    def _check_connection(self, url: SplitResult) -> Iterator[Finding]:
        host, port = url.hostname or "", url.port or (443 if url.scheme == "https" else 80)
        if url.scheme in getproxies() and not proxy_bypass(host):
            yield Finding("network", "ok", f"{host} is reached through a proxy")
            return
        step = "name"
        try:
            addresses = {str(entry[4][0]) for entry in socket.getaddrinfo(host, port)}
            yield Finding(step, "ok", f"{host} is {', '.join(sorted(addresses))}")
            step = "network"
            with self._connect(host, port) as connection:
                yield Finding(step, "ok", f"{host} takes connections on port {port}")
                step = "TLS"
                yield self._check_tls(connection, host) if url.scheme == "https" else _IN_CLEAR
        except (OSError, Fault, *STORE_ERRORS) as error:
            yield self._failed(step, error)

    def _connect(self, host: str, port: int) -> socket.socket:
        try:
            return socket.create_connection((host, port), self._config.connect_timeout_sec)
        except TimeoutError as error:
            raise ConnectTimeoutError(endpoint_url=host, error=error) from error

    def _check_tls(self, connection: socket.socket, host: str) -> Finding:
        trusted = trusted_certificates(self._config.ca_bundle)
        context = ssl.create_default_context(cafile=trusted if isinstance(trusted, str) else None)
        with context.wrap_socket(connection, server_hostname=host) as tls:
            until = (tls.getpeercert() or {}).get("notAfter", "?")
            return Finding("TLS", "ok", f"{tls.version()}, certificate trusted until {until}")

    def _check_rights(self, client: S3Client) -> Iterator[Finding]:
        try:
            begun = client.create_multipart_upload(**self._place, **self._attributes)
            upload = {**self._place, "UploadId": named(begun, "UploadId")}
        except STORE_ERRORS as error:
            if isinstance(error, ClientError):
                yield from self._check_clock(http_headers(error))
            yield self._failed("right to put", error)
            return
        yield from self._check_clock(begun["ResponseMetadata"]["HTTPHeaders"])
        try:
            client.upload_part(**upload, PartNumber=1, Body=_TRIAL)
            put = Finding("right to put", "ok", f"the key may write under {self._words.place}")
        except STORE_ERRORS as error:
            put = self._failed("right to put", error)
        yield put
        yield self._check_abort(client, upload)
        if put.state == "ok":
            yield self._check_conditions(client)

    def _check_clock(self, headers: Mapping[str, str]) -> Iterator[Finding]:
        skew = clock_skew_sec(headers)
        if skew is None:
            return
        detail = f"{duration(abs(skew))} {'ahead of' if skew > 0 else 'behind'} the store's"
        if abs(skew) < _CLOCK_WARNING_SEC:
            yield Finding("clock", "ok", detail)
        else:
            cure = "set this host's clock (timedatectl, chrony): S3 refuses from 15 min on"
            yield Finding("clock", "warning", detail, cure)

    def _check_abort(self, client: S3Client, upload: Mapping[str, str]) -> Finding:
        step = "right to abort"
        try:
            client.abort_multipart_upload(**upload)
        except STORE_ERRORS as error:
            fault = as_fault(error, self._words)
            return Finding(
                step,
                "warning",
                self._plain(fault.message),
                "allow s3:AbortMultipartUpload, or have the bucket's lifecycle clear unfinished "
                "uploads: `aod-shipper bucket-policy` prints both",
            )
        return Finding(step, "ok", "the key may free what an unfinished upload left")

    def _check_conditions(self, client: S3Client) -> Finding:
        """With a body that is none of its checksum: whatever the store does, it keeps nothing."""
        step = "conditional writes"
        try:
            client.put_object(**self._place, Body=_TRIAL, ContentMD5=_WRONG_MD5, IfNoneMatch="*")
        except ClientError as error:
            if http_status(error) == _EXISTS:
                return Finding(step, "ok", "they work: nothing is written twice")
            if error_code(error) not in ("BadDigest", "InvalidDigest"):
                detail = f"the store refuses them ({error_code(error)}): a repeated upload writes "
                return Finding(step, "ok", detail + "the same bytes again")
        except STORE_ERRORS as error:
            return self._failed(step, error)
        return Finding(
            step,
            "ok",
            "found out at the first heartbeat; without them, a repeated "
            "upload writes the same bytes again",
        )

    def _failed(self, step: str, error: Exception) -> Finding:
        fault = error if isinstance(error, Fault) else connection_fault(error, self._words)
        fault = fault or as_fault(error, self._words)
        return Finding(step, "failed", self._plain(fault.message), fault.remedy)

    def _plain(self, message: str) -> str:
        return message.removeprefix(f"{self._words.description}: ")
