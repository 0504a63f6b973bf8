"""How the S3 stores of the tests answer where stores differ.

``python -m tests.store_differences`` prints the table of docs/stores.md.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tests.go_programs import MINIO, VERSITYGW, find_program
from tests.minio_server import MinioServer
from tests.second_store import VersityServer
from tests.store_examiner import BODY, Examiner, answer_to, clock_behind
from tests.store_server import StoreServer

PART = 5 << 20  # the smallest that may have another after it
OTHER_BODY = b"something else"
ABSENT_ETAG = '"00000000000000000000000000000000"'
SMALL_DISK = "48m"
FULL_DISK_SEC = 30


def put_if_absent(store: Examiner) -> str:
    key = store.new_key()
    first = answer_to(lambda: store.put(key, IfNoneMatch="*"))
    again = answer_to(lambda: store.put(key, OTHER_BODY, IfNoneMatch="*"))
    return f"{first}, then {again}"


def complete_if_absent(store: Examiner) -> str:
    key = store.new_key()
    first = answer_to(lambda: store.upload(key, BODY, IfNoneMatch="*"))
    again = answer_to(lambda: store.upload(key, OTHER_BODY, IfNoneMatch="*"))
    return f"{first}, then {again}"


def parts_after_refusal(store: Examiner) -> str:
    """Whether an upload whose completion was refused by a condition still wants to be aborted."""
    key = store.new_key()
    store.put(key)
    upload = store.begin(key)
    parts = store.send(upload, BODY)
    answer_to(lambda: store.complete(upload, parts, IfNoneMatch="*"))
    return answer_to(lambda: store.client.abort_multipart_upload(**upload))


def put_if_match(store: Examiner) -> str:
    key = store.new_key()
    etag = store.put(key)["ETag"]
    right = answer_to(lambda: store.put(key, IfMatch=etag))
    wrong = answer_to(lambda: store.put(key, IfMatch=ABSENT_ETAG))
    absent = answer_to(lambda: store.put(IfMatch=etag))
    return f"{right}; {wrong}; {absent}"


def etag_of_one_request(store: Examiner) -> str:
    md5 = hashlib.md5(BODY, usedforsecurity=False).hexdigest()
    return "md5" if store.put()["ETag"].strip('"') == md5 else "something else"


def etag_of_parts(store: Examiner) -> str:
    bodies = (bytes(PART), BODY)
    digests = b"".join(hashlib.md5(body, usedforsecurity=False).digest() for body in bodies)
    expected = f"{hashlib.md5(digests, usedforsecurity=False).hexdigest()}-{len(bodies)}"
    etag = store.upload(store.new_key(), *bodies)["ETag"].strip('"')
    return "md5 of the parts' md5s, -N" if etag == expected else "something else"


def tags(store: Examiner) -> str:
    key = store.new_key()
    answer = answer_to(lambda: store.put(key, Tagging="kind=evidence"))
    if answer != "200":
        return answer
    kept = store.client.get_object_tagging(Bucket=store.bucket, Key=key)["TagSet"]
    return "kept" if kept == [{"Key": "kind", "Value": "evidence"}] else f"200, but {kept}"


def tags_in_parts(store: Examiner) -> str:
    key = store.new_key()
    upload = store.begin(key, Tagging="kind=evidence")
    store.complete(upload, store.send(upload, BODY))
    kept = store.client.get_object_tagging(Bucket=store.bucket, Key=key)["TagSet"]
    return "kept" if kept == [{"Key": "kind", "Value": "evidence"}] else f"200, but {kept}"


def encryption(kind: str) -> Callable[[Examiner], str]:
    def ask(store: Examiner) -> str:
        key = store.new_key()
        answer = answer_to(lambda: store.put(key, ServerSideEncryption=kind))
        if answer != "200":
            return answer
        return f"200, encrypted: {store.head(key).get('ServerSideEncryption', 'no')}"

    return ask


def sha256_checksum(store: Examiner) -> str:
    key = store.new_key()
    right = base64.b64encode(hashlib.sha256(BODY).digest()).decode()
    wrong = base64.b64encode(hashlib.sha256(OTHER_BODY).digest()).decode()
    stored = answer_to(lambda: store.put(key, ChecksumSHA256=right))
    told = store.head(key, ChecksumMode="ENABLED").get("ChecksumSHA256") == right
    refused = answer_to(lambda: store.put(ChecksumSHA256=wrong))
    return f"{stored}, {'told' if told else 'not told'} by HEAD; {refused}"


def content_md5(store: Examiner) -> str:
    wrong = base64.b64encode(hashlib.md5(OTHER_BODY, usedforsecurity=False).digest()).decode()
    return answer_to(lambda: store.put(ContentMD5=wrong))


def wrong_key(**changes: str) -> Callable[[Examiner], str]:
    def ask(store: Examiner) -> str:
        client = store.client_with(**changes)
        return answer_to(lambda: client.put_object(Bucket=store.bucket, Key="k", Body=BODY))

    return ask


def missing_bucket(store: Examiner) -> str:
    return answer_to(lambda: store.put(Bucket="no-such-bucket"))


def wrong_clock(store: Examiner) -> str:
    with clock_behind(minutes=20):
        return answer_to(store.put)


def unknown_upload(store: Examiner) -> str:
    aborted = store.begin(store.new_key())
    store.client.abort_multipart_upload(**aborted)
    part = answer_to(lambda: store.client.upload_part(**aborted, PartNumber=1, Body=BODY))
    etag = {"PartNumber": 1, "ETag": ABSENT_ETAG}
    whole = answer_to(lambda: store.complete(aborted, [etag]))
    abort = answer_to(lambda: store.client.abort_multipart_upload(**aborted))
    return f"{part}; {whole}; {abort}"


def completed_twice(store: Examiner) -> str:
    upload = store.begin(store.new_key())
    parts = store.send(upload, BODY)
    store.complete(upload, parts)
    return answer_to(lambda: store.complete(upload, parts))


def wrong_part(store: Examiner) -> str:
    upload = store.begin(store.new_key())
    store.send(upload, BODY)
    return answer_to(lambda: store.complete(upload, [{"PartNumber": 1, "ETag": ABSENT_ETAG}]))


def small_part(store: Examiner) -> str:
    return answer_to(lambda: store.upload(store.new_key(), BODY, BODY))


def full_disk(store: Examiner) -> str:
    """A server of the same kind whose file system is full; needs root. The answer once it has
    noticed: MinIO looks at its disk now and then, and says 500 InternalError until then."""
    kind = type(store.store)
    deadline, answer = time.monotonic() + FULL_DISK_SEC, ""
    with small_disk() as directory, kind(store.store.binary, directory) as server:
        examiner = Examiner(server)
        while not answer.startswith("507") and time.monotonic() < deadline:
            answer = answer_to(lambda: examiner.put(body=os.urandom(1 << 20)))
    return answer


@contextlib.contextmanager
def small_disk() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as directory:
        size = f"size={SMALL_DISK}"
        subprocess.run(["mount", "-t", "tmpfs", "-o", size, "none", directory], check=True)
        try:
            yield Path(directory)
        finally:
            subprocess.run(["umount", directory], check=True)


QUESTIONS: dict[str, Callable[[Examiner], str]] = {
    "`PutObject` with `If-None-Match: *`, twice": put_if_absent,
    "`CompleteMultipartUpload` with `If-None-Match: *`, twice": complete_if_absent,
    "abort of an upload that was refused so": parts_after_refusal,
    "`PutObject` with `If-Match`: its ETag; another; no object": put_if_match,
    "ETag of an object sent in one request": etag_of_one_request,
    "ETag of an object sent in parts": etag_of_parts,
    "object tags, one request": tags,
    "object tags, in parts": tags_in_parts,
    "encryption `AES256`, no key store set up": encryption("AES256"),
    "encryption `aws:kms`, no key store set up": encryption("aws:kms"),
    "`x-amz-checksum-sha256`: right; wrong": sha256_checksum,
    "wrong `Content-MD5`": content_md5,
    "unknown access key": wrong_key(aws_access_key_id="unknown"),
    "wrong secret key": wrong_key(aws_secret_access_key="wrong"),
    "session token that is none": wrong_key(aws_session_token="none"),
    "signed for another region": wrong_key(region_name="eu-central-1"),
    "bucket that is not there": missing_bucket,
    "clock 20 minutes off": wrong_clock,
    "store's disk full": full_disk,
    "aborted upload: another part; completion; abort": unknown_upload,
    "completion, a second time": completed_twice,
    "completion with another part's ETag": wrong_part,
    "part below 5 MiB that is not the last": small_part,
}


def table(stores: Sequence[StoreServer]) -> str:
    """The Markdown table of every question and each store's answer."""
    examiners = [Examiner(store) for store in stores]
    rows = [
        ["", *(store.name for store in stores)],
        ["---"] * (len(stores) + 1),
        *([question, *map(ask, examiners)] for question, ask in QUESTIONS.items()),
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        with (
            MinioServer(find_program(MINIO), root / "minio") as minio,
            VersityServer(find_program(VERSITYGW), root / "versitygw") as versity,
        ):
            print(table([minio, versity]))


if __name__ == "__main__":
    main()
