"""The key for an S3 store: whose file it is read from, and what is refused before it is used."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from botocore.credentials import Credentials, SharedCredentialProvider
from botocore.exceptions import BotoCoreError, NoCredentialsError
from botocore.session import Session

from shipper.configuration.schema import S3Destination
from shipper.faults import DestinationFault

# Device, inode, size and time of change of a credentials file.
Stamp = tuple[int, int, int, int]

SYSTEMD_CREDENTIAL = "s3-credentials"

_SOURCES = {
    "env": "environment variables",
    "iam-role": "the instance's role",
    "container-role": "the container's role",
    "shared-credentials-file": "the AWS credentials file of this user",
}
_NO_FORMAT = "is not in the format of an AWS credentials file"
_NOT_FOR_OTHERS = stat.S_IWGRP | stat.S_IROTH | stat.S_IWOTH
_REMEDY = (
    "write [default] with aws_access_key_id and aws_secret_access_key into it, each value on its "
    "line, readable for the shipper's user only"
)


def find_credentials(config: S3Destination) -> Credentials | None:
    """The key to use, or None for botocore's own chain; order as `S3Destination` says.

    Raises DestinationFault when there is a file that cannot be used.
    """
    if config.credentials_file is not None:
        _refuse_open_to_others(config.credentials_file)
        credentials = _read(config.credentials_file)
        if credentials is None:
            raise _unusable(config.credentials_file, "there is no key under [default]")
        return credentials
    path = credentials_path(config)
    return _read(path) if path and path.exists() else None


def credentials_source(config: S3Destination) -> str:
    """Where the key comes from, in words. Raises as `find_credentials`, and NoCredentialsError."""
    if find_credentials(config) is not None:
        path = credentials_path(config)
        return f"{path}" if config.credentials_file else f"{path}, from systemd"
    found = Session().get_credentials()
    if found is None:
        raise NoCredentialsError
    return _SOURCES.get(found.method, f"botocore's {found.method}")


def credentials_path(config: S3Destination) -> Path | None:
    """The file that `find_credentials` looks at first; None where only boto's chain is left."""
    if config.credentials_file is not None:
        return config.credentials_file
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    return Path(directory, SYSTEMD_CREDENTIAL) if directory else None


def credentials_stamp(config: S3Destination) -> Stamp | None:
    """Another one when the credentials file was written anew; None where there is no file."""
    path = credentials_path(config)
    try:
        status = path.stat() if path else None
    except OSError:
        return None
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns) if status else None


def _refuse_open_to_others(path: Path) -> None:
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError as error:
        raise _unusable(path, error.strerror or "cannot be read") from error
    if mode & _NOT_FOR_OTHERS:
        raise DestinationFault(
            f"credentials file {path}: mode {mode:04o} is open to other users", f"chmod 0640 {path}"
        )


def _read(path: Path) -> Credentials | None:
    """The key in the AWS format file ``path``, if any; its text appears in no message."""
    try:
        with path.open("rb"):
            credentials = SharedCredentialProvider(str(path)).load()
    except OSError as error:
        raise _unusable(path, error.strerror or "cannot be read") from error
    except BotoCoreError as error:
        raise _unusable(path, _NO_FORMAT) from error
    if not credentials or not credentials.access_key or not credentials.secret_key:
        return None
    values = (credentials.access_key, credentials.secret_key, credentials.token or "")
    # http.client would quote a header with a line break in it, such as a wrapped token.
    if not all(value.isprintable() and " " not in value for value in values):
        raise _unusable(path, f"{_NO_FORMAT}: a value has white space in it")
    return credentials


def _unusable(path: Path, reason: str) -> DestinationFault:
    return DestinationFault(f"credentials file {path}: {reason}", _REMEDY)
