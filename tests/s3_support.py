"""What the tests of the S3 destination share: keys with few rights, destinations on demand."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import boto3
import pytest

from shipper.configuration.schema import S3Destination
from shipper.s3.bucket import S3Bucket
from tests.minio_server import MinioServer
from tests.shipper_support import PROBE_KEY, write_key

WRITE_ONLY = ("s3:PutObject",)
SHIPPER = ("s3:PutObject", "s3:AbortMultipartUpload")


def forget_credentials_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)


def credentials_file(path: Path, key: str, secret: str, token: str = "") -> Path:
    lines = [f"aws_access_key_id = {key}", f"aws_secret_access_key = {secret}"]
    return write_key(path, *lines, *([f"aws_session_token = {token}"] if token else []))


def policy_of(statements: Iterable[dict[str, Any]]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


def temporary_key(minio: MinioServer, policy: str) -> tuple[str, str, str]:
    """Access key, secret and token of a session that may do what ``policy`` allows."""
    tokens = boto3.session.Session().client("sts", **minio.boto3_arguments())
    granted = tokens.assume_role(
        RoleArn="arn:aws:iam::1:role/test", RoleSessionName="test", Policy=policy
    )["Credentials"]
    return granted["AccessKeyId"], granted["SecretAccessKey"], granted["SessionToken"]


def restricted_key(
    minio: MinioServer, bucket: str, actions: Iterable[str], objects: str = "*"
) -> tuple[str, str, str]:
    """The same for ``actions`` on the bucket's ``objects``."""
    resource = f"arn:aws:s3:::{bucket}/{objects}"
    return temporary_key(
        minio, policy_of([{"Effect": "Allow", "Action": list(actions), "Resource": [resource]}])
    )


class Stores:
    """Makes destinations for one bucket, with the server's own key unless another is given."""

    def __init__(self, minio: MinioServer, bucket: str, directory: Path) -> None:
        self.minio = minio
        self.bucket = bucket
        self._directory = directory

    def config(self, key: tuple[str, ...] | None = None, **changes: Any) -> S3Destination:
        path = self._directory / f"key-{os.urandom(4).hex()}"
        credentials_file(path, *(key or (self.minio.access_key, self.minio.secret_key)))
        settings = {
            "bucket": self.bucket,
            "endpoint_url": self.minio.endpoint_url,
            "credentials_file": path,
        }
        return S3Destination(**{**settings, **changes})

    def open(self, key: tuple[str, ...] | None = None, **changes: Any) -> S3Bucket:
        return S3Bucket(self.config(key, **changes), PROBE_KEY)

    def unfinished(self) -> list[str]:
        """The keys of uploads that were neither completed nor aborted."""
        answer = self.minio.client.list_multipart_uploads(Bucket=self.bucket)
        return [upload["Key"] for upload in answer.get("Uploads", [])]
