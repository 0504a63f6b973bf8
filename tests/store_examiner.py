"""Asks an S3 store what the shipper's client would ask, and says what it answered."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from typing import Any
from unittest import mock

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.store_server import StoreServer

BODY = b"evidence"

Answer = dict[str, Any]


class Examiner:
    """Asks one store, in a bucket of its own, as the shipper's client would: without retries."""

    def __init__(self, store: StoreServer) -> None:
        self.store = store
        self.bucket = store.create_bucket()
        self.client = self.client_with()
        self._count = 0

    def client_with(self, **changes: Any) -> Any:
        config = Config(
            proxies={},
            retries={"total_max_attempts": 1},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            s3={"addressing_style": "path", "payload_signing_enabled": True},
        )
        arguments = {**self.store.boto3_arguments(), "config": config, **changes}
        return boto3.session.Session().client("s3", **arguments)

    def new_key(self) -> str:
        self._count += 1
        return f"host/{self._count}"

    def put(self, key: str | None = None, body: bytes = BODY, **arguments: Any) -> Answer:
        key = key or self.new_key()
        answer: Answer = self.client.put_object(
            **{"Bucket": self.bucket, "Key": key, "Body": body, **arguments}
        )
        return answer

    def head(self, key: str, **arguments: Any) -> Answer:
        answer: Answer = self.client.head_object(Bucket=self.bucket, Key=key, **arguments)
        return answer

    def begin(self, key: str, **arguments: Any) -> Answer:
        """An upload in parts: the arguments that the other calls want to know it by."""
        answer = self.client.create_multipart_upload(Bucket=self.bucket, Key=key, **arguments)
        return {"Bucket": self.bucket, "Key": key, "UploadId": answer["UploadId"]}

    def send(self, upload: Answer, *bodies: bytes) -> list[Answer]:
        return [
            {
                "PartNumber": number,
                "ETag": self.client.upload_part(**upload, PartNumber=number, Body=body)["ETag"],
            }
            for number, body in enumerate(bodies, 1)
        ]

    def complete(self, upload: Answer, parts: Sequence[Answer], **arguments: Any) -> Answer:
        answer: Answer = self.client.complete_multipart_upload(
            **upload, MultipartUpload={"Parts": list(parts)}, **arguments
        )
        return answer

    def upload(self, key: str, *bodies: bytes, **arguments: Any) -> Answer:
        upload = self.begin(key)
        return self.complete(upload, self.send(upload, *bodies), **arguments)


def answer_to(call: Callable[[], Answer]) -> str:
    """The HTTP status, and the error code where there is one."""
    try:
        return str(call()["ResponseMetadata"]["HTTPStatusCode"])
    except ClientError as error:
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        return f"{status} {error.response['Error']['Code']}"


def clock_behind(minutes: int) -> Any:
    """While it is entered, requests are signed by a clock that is ``minutes`` late."""
    past = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(minutes=minutes)
    return mock.patch("botocore.auth.get_current_datetime", return_value=past)
