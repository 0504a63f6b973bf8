"""A store with its proxies: what one run at a time needs for itself."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import boto3

from tests.minio_server import MinioServer
from tests.shipper_support import write_key
from tests.store_matrix.certificates import Certificates
from tests.store_matrix.proxy import Fault, StoreProxy
from tests.store_matrix.victim import Store


class Lane:
    """A MinIO of its own below ``directory``, behind a proxy without and one with TLS."""

    def __init__(self, binary: Path, directory: Path, write_only: bool) -> None:
        self.server = MinioServer(binary, directory)
        self._certificates = Certificates(directory)
        self._proxies = {
            False: StoreProxy(self.server),
            True: StoreProxy(self.server, self._certificates),
        }
        self._key_file = directory / "key"
        self._write_only = write_only

    def __enter__(self) -> Lane:
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.server)
            write_key(self._key_file, *(self._temporary_key() if self._write_only else self._key()))
            for proxy in self._proxies.values():
                stack.enter_context(proxy)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def proxy_for(self, fault: Fault) -> StoreProxy:
        """The one that can do this."""
        return self._proxies[fault.tls]

    @contextlib.contextmanager
    def store_for(self, fault: Fault) -> Iterator[Store]:
        """A new bucket behind the proxy, which is gone afterwards."""
        bucket = self.server.create_bucket()
        try:
            yield Store(
                bucket,
                self.proxy_for(fault).endpoint_url,
                self._key_file,
                self._certificates.ca_bundle if fault.tls else None,
                fault.read_timeout_sec,
            )
        finally:
            self._remove(bucket)

    def _key(self) -> list[str]:
        return [
            f"aws_access_key_id = {self.server.access_key}",
            f"aws_secret_access_key = {self.server.secret_key}",
        ]

    def _temporary_key(self) -> list[str]:
        actions = ["s3:PutObject", "s3:AbortMultipartUpload"]
        statement = {"Effect": "Allow", "Action": actions, "Resource": ["arn:aws:s3:::*/*"]}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        tokens = boto3.session.Session().client("sts", **self.server.boto3_arguments())
        key = tokens.assume_role(
            RoleArn="arn:aws:iam::1:role/test", RoleSessionName="test", Policy=policy
        )["Credentials"]
        return [
            f"aws_access_key_id = {key['AccessKeyId']}",
            f"aws_secret_access_key = {key['SecretAccessKey']}",
            f"aws_session_token = {key['SessionToken']}",
        ]

    def _remove(self, bucket: str) -> None:
        client = self.server.client
        for upload in client.list_multipart_uploads(Bucket=bucket).get("Uploads", []):
            client.abort_multipart_upload(
                Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"]
            )
        for entry in client.list_objects_v2(Bucket=bucket).get("Contents", []):
            client.delete_object(Bucket=bucket, Key=entry["Key"])
        client.delete_bucket(Bucket=bucket)
