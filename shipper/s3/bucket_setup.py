"""What a bucket needs before it takes evidence: policies, lifecycle, versioning."""

from __future__ import annotations

import json
from typing import Any

from shipper.configuration.schema import S3Destination
from shipper.destinations.object_key import safe_name
from shipper.s3.words import is_at_aws, kms_rights

PARTS = ("shipper", "reader", "bucket", "lifecycle", "versioning")

_UNFINISHED_DAYS = 7
_OLD_VERSION_DAYS = 30
_EXPIRY_DAYS = 365

# The beginnings of regions that are not AWS's own partition, `aws`.
_PARTITIONS = {"cn-": "aws-cn", "us-gov-": "aws-us-gov"}

_TEXTS = {
    "shipper": (
        "The shipper's key: it may add bundles, and neither read nor list nor delete.",
        "aws iam put-user-policy --user-name aod-shipper --policy-name aod-shipper \\\n"
        "  --policy-document file://shipper.json",
        "mc admin policy create STORE aod-shipper shipper.json\n"
        "mc admin user add STORE aod-shipper    # asks for a secret\n"
        "mc admin policy attach STORE aod-shipper --user aod-shipper",
    ),
    "reader": (
        "A support engineer's key: it may list and read, and change nothing.",
        "aws iam put-user-policy --user-name aod-reader --policy-name aod-reader \\\n"
        "  --policy-document file://reader.json",
        "mc admin policy create STORE aod-reader reader.json\n"
        "mc admin policy attach STORE aod-reader --user aod-reader",
    ),
    "bucket": (
        "The bucket itself: nobody may use it without TLS.",
        "aws s3api put-bucket-policy --bucket {bucket} --policy file://bucket.json",
        "mc anonymous set-json bucket.json STORE/{bucket}",
    ),
    "lifecycle": (
        "The bucket's lifecycle: what uploads left unfinished goes after {unfinished} days (MinIO "
        "sees\n# to that by itself, after one), and versions that were overwritten, such as old "
        "heartbeats,\n# after {old} days. Expiry of evidence is off: enable it, and choose the "
        "days.",
        "aws s3api put-bucket-lifecycle-configuration --bucket {bucket} \\\n"
        "  --lifecycle-configuration file://lifecycle.json",
        "mc ilm rule import STORE/{bucket} < lifecycle.json",
    ),
    "versioning": (
        "Versioning: what somebody overwrites or deletes can be had back.",
        "aws s3api put-bucket-versioning --bucket {bucket} \\\n"
        "  --versioning-configuration file://versioning.json",
        "mc version enable STORE/{bucket}",
    ),
}


class BucketSetup:
    """What to apply to the bucket of ``config`` for keys below ``prefix``.

    With ``host`` the shipper's key may write into that host's folder alone.
    """

    def __init__(self, config: S3Destination, prefix: str, host: str | None = None) -> None:
        self._config = config
        self._folder = f"{prefix}/" if prefix else ""
        self._host_folder = f"{safe_name(host)}/" if host else ""
        self._partition = _partition(config)
        self._bucket = f"arn:{self._partition}:s3:::{config.bucket}"

    def documents(self) -> dict[str, Any]:
        """Each of `PARTS` as AWS and MinIO take it."""
        return {
            "shipper": self._shipper(),
            "reader": self._reader(),
            "bucket": self._tls_only(),
            "lifecycle": self._lifecycle(),
            "versioning": {"Status": "Enabled"},
        }

    def as_text(self) -> str:
        """All of it for people, with the commands that apply it."""
        words = {
            "bucket": self._config.bucket,
            "unfinished": _UNFINISHED_DAYS,
            "old": _OLD_VERSION_DAYS,
        }
        sections = []
        for part, document in self.documents().items():
            title, aws, mc = (text.format(**words) for text in _TEXTS[part])
            commands = "\n".join(f"#   {line}" for line in f"{aws}\n{mc}".splitlines())
            save = f"#   aod-shipper bucket-policy --part {part} > {part}.json"
            body = json.dumps(document, indent=2)
            title += self._warning(part)
            sections.append(f"# {title}\n{save}\n{commands}\n{body}")
        return "\n\n".join(sections)

    def _warning(self, part: str) -> str:
        if part == "bucket" and (self._config.endpoint_url or "").startswith("http:"):
            return "\n# NOT AS LONG AS endpoint_url is http: this would lock the shipper out."
        return ""

    def _shipper(self) -> dict[str, Any]:
        actions = ["s3:PutObject", "s3:AbortMultipartUpload"]
        if self._config.tags:
            actions.append("s3:PutObjectTagging")
        objects = f"{self._bucket}/{self._folder}{self._host_folder}*"
        return _policy(_allow("AddBundles", actions, objects), *self._kms(kms_rights(self._config)))

    def _reader(self) -> dict[str, Any]:
        listing = _allow("ListBundles", ["s3:ListBucket", "s3:ListBucketVersions"], self._bucket)
        if self._folder:
            listing["Condition"] = {"StringLike": {"s3:prefix": [f"{self._folder}*"]}}
        actions = ["s3:GetObject", "s3:GetObjectVersion", "s3:GetObjectTagging"]
        return _policy(
            _allow("FindBucket", ["s3:GetBucketLocation"], self._bucket),
            listing,
            _allow("ReadBundles", actions, f"{self._bucket}/{self._folder}*"),
            *self._kms(kms_rights(self._config)[1:]),
        )

    def _kms(self, actions: tuple[str, ...]) -> list[dict[str, Any]]:
        key = self._config.kms_key_id
        if not actions or key is None:
            return []
        place, name = _split_key(key, self._partition)
        alias = name.startswith("alias/")
        # What is allowed on an alias is not allowed on its key.
        statement = _allow("UseEncryptionKey", list(actions), place + ("key/*" if alias else name))
        if alias:
            statement["Condition"] = {"ForAnyValue:StringEquals": {"kms:ResourceAliases": name}}
        return [statement]

    def _tls_only(self) -> dict[str, Any]:
        return _policy(
            {
                "Sid": "OnlyWithTls",
                "Effect": "Deny",
                "Principal": "*",
                "Action": "s3:*",
                "Resource": [self._bucket, f"{self._bucket}/*"],
                "Condition": {"Bool": {"aws:SecureTransport": "false"}},
            }
        )

    def _lifecycle(self) -> dict[str, Any]:
        place = {"Filter": {"Prefix": self._folder}}
        return {
            "Rules": [
                {
                    "ID": "clear-what-is-left-over",
                    "Status": "Enabled",
                    **place,
                    "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": _UNFINISHED_DAYS},
                    "NoncurrentVersionExpiration": {"NoncurrentDays": _OLD_VERSION_DAYS},
                },
                {
                    "ID": "expire-evidence",
                    "Status": "Disabled",
                    **place,
                    "Expiration": {"Days": _EXPIRY_DAYS},
                },
            ]
        }


def _policy(*statements: dict[str, Any]) -> dict[str, Any]:
    return {"Version": "2012-10-17", "Statement": list(statements)}


def _allow(name: str, actions: list[str], resource: str) -> dict[str, Any]:
    return {"Sid": name, "Effect": "Allow", "Action": actions, "Resource": [resource]}


def _partition(config: S3Destination) -> str:
    region = config.region or ""
    found = (name for start, name in _PARTITIONS.items() if region.startswith(start))
    return next(found, "aws") if is_at_aws(config) else "aws"


def _split_key(key: str, partition: str) -> tuple[str, str]:
    """The beginning of the ARN of ``key``, and its end: ``key/`` or ``alias/`` and a name."""
    if key.startswith("arn:"):
        place, _, name = key.rpartition(":")
        return f"{place}:", name
    return f"arn:{partition}:kms:*:*:", key if key.startswith("alias/") else f"key/{key}"
