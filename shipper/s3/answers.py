"""How the answers of a store are read."""

from __future__ import annotations

from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from shipper.s3.client import Answer


class NotAStoreError(Exception):
    """Said yes, as a login page does, but not as an S3 store would."""


# What is raised while one talks to a store, or to what is taken for one. ValueError: a setting
# or a header that makes no sense.
STORE_ERRORS = (BotoCoreError, ClientError, ResponseParserError, NotAStoreError, ValueError)


def http_status(error: ClientError) -> int:
    """The status of a refusal; 0 if it came without."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") or 0)


def http_headers(error: ClientError) -> dict[str, Any]:
    """The headers of a refusal, their names in lower case."""
    headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders") or {}
    return {name.lower(): value for name, value in headers.items()}


def error_code(error: ClientError) -> str:
    """S3's word for a refusal, such as AccessDenied; a number where the store had no word."""
    return str(error.response.get("Error", {}).get("Code") or "")


def error_message(error: ClientError) -> str:
    """What the store says for people."""
    return str(error.response.get("Error", {}).get("Message") or "")


def named(answer: Answer, name: str) -> str:
    """The member ``name`` that every store's answer has; raises `NotAStoreError` without."""
    value = answer.get(name)
    if not isinstance(value, str) or not value:
        raise NotAStoreError(name)
    return value
