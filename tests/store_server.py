"""What the S3 stores of the tests share: each one server on loopback, ended by its pid."""

from __future__ import annotations

import abc
import contextlib
import functools
import os
import secrets
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, TypeVar

import boto3
from botocore.config import Config

from tests.go_programs import ProgramUnavailableError

START_TIMEOUT_SEC = 60

AnyStore = TypeVar("AnyStore", bound="StoreServer")


class StoreServer(abc.ABC):
    """One server with a data directory and credentials of its own, on 127.0.0.1.

    ``settings`` are further variables of its environment. With ``ca_bundle`` it speaks TLS, and
    finds its certificate where it looks for one. A guest with QEMU's user network reaches it as
    10.0.2.2 at the same `port`.
    """

    name: str
    ready_path: str

    def __init__(
        self, binary: Path, directory: Path, ca_bundle: Path | None = None, **settings: str
    ) -> None:
        self._ca_bundle = ca_bundle
        self._settings = settings
        self.binary = binary
        self.directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        self.access_key = "test" + secrets.token_hex(8)
        self.secret_key = secrets.token_hex(20)
        self.port = free_port()

    @abc.abstractmethod
    def command(self) -> list[str]:
        """The server's command line, without secrets."""

    @abc.abstractmethod
    def environment(self) -> dict[str, str]:
        """What the server's environment has besides PATH and HOME: the credentials."""

    def __enter__(self: AnyStore) -> AnyStore:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def endpoint_url(self) -> str:
        return f"{'https' if self._ca_bundle else 'http'}://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start (again) on the same port and data; returns when the server takes requests."""
        self.data.mkdir(parents=True, exist_ok=True)
        home = {"PATH": os.environ.get("PATH", ""), "HOME": str(self.directory)}
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command(),
                env={**home, **self.environment(), **self._settings},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self._wait_until_ready(self._process)

    def stop(self) -> None:
        """End the server, if it runs."""
        self._end(lambda process: process.terminate())

    def kill(self) -> None:
        """End the server as a crash does."""
        self._end(lambda process: process.kill())

    @functools.cached_property
    def client(self) -> Any:
        """A boto3 S3 client with the server's own key."""
        return boto3.session.Session().client("s3", **self.boto3_arguments())

    def boto3_arguments(self) -> dict[str, Any]:
        return {
            "endpoint_url": self.endpoint_url,
            "verify": str(self._ca_bundle) if self._ca_bundle else None,
            "region_name": "us-east-1",
            "aws_access_key_id": self.access_key,
            "aws_secret_access_key": self.secret_key,
            "config": Config(proxies={}, s3={"addressing_style": "path"}),
        }

    def create_bucket(self, name: str | None = None) -> str:
        """A new bucket; its name."""
        bucket = name or f"test-{secrets.token_hex(6)}"
        self.client.create_bucket(Bucket=bucket)
        return bucket

    def objects(self, bucket: str) -> list[dict[str, Any]]:
        """What bundles left in ``bucket``, so no heartbeats: dictionaries with Key, Size,
        LastModified, by key."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
        entries = [entry for page in pages for entry in page.get("Contents", [])]
        return [entry for entry in entries if not entry["Key"].endswith("/heartbeat.json")]

    def keys(self, bucket: str) -> list[str]:
        return [entry["Key"] for entry in self.objects(bucket)]

    def read(self, bucket: str, key: str) -> bytes:
        content: bytes = self.client.get_object(Bucket=bucket, Key=key)["Body"].read()
        return content

    @property
    def data(self) -> Path:
        """Where the server keeps its objects."""
        return self.directory / "data"

    @property
    def _log(self) -> Path:
        return self.directory / f"{self.name}.log"

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        tls = ssl.create_default_context(cafile=self._ca_bundle) if self._ca_bundle else None
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=tls)
        )
        deadline = time.monotonic() + START_TIMEOUT_SEC
        while time.monotonic() < deadline and process.poll() is None:
            with contextlib.suppress(urllib.error.URLError, OSError):
                opener.open(self.endpoint_url + self.ready_path, timeout=5).close()
                return
            time.sleep(0.05)
        self.kill()
        tail = self._log.read_text()[-1000:]
        raise ProgramUnavailableError(f"{self.name} does not start: {tail}")

    def _end(self, how: Any) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        how(process)
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on now, of those that no outgoing connection is
    given: so it stays free until it is listened on, and while a server is away for a time."""
    limits = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
    lowest_given = max(int(limits[0]), 10_000)
    while True:
        port = 5_000 + secrets.randbelow(lowest_given - 5_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
