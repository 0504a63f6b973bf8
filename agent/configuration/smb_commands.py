"""Names the field uses for what the wire carries as numbers: SMB2 commands and errno values."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from types import MappingProxyType

ALL_SMB_CMDS: Mapping[str, int] = MappingProxyType(
    {
        "SMB2_NEGOTIATE": 0,
        "SMB2_SESSION_SETUP": 1,
        "SMB2_LOGOFF": 2,
        "SMB2_TREE_CONNECT": 3,
        "SMB2_TREE_DISCONNECT": 4,
        "SMB2_CREATE": 5,
        "SMB2_CLOSE": 6,
        "SMB2_FLUSH": 7,
        "SMB2_READ": 8,
        "SMB2_WRITE": 9,
        "SMB2_LOCK": 10,
        "SMB2_IOCTL": 11,
        "SMB2_CANCEL": 12,
        "SMB2_ECHO": 13,
        "SMB2_QUERY_DIRECTORY": 14,
        "SMB2_CHANGE_NOTIFY": 15,
        "SMB2_QUERY_INFO": 16,
        "SMB2_SET_INFO": 17,
        "SMB2_OPLOCK_BREAK": 18,
        "SMB2_SERVER_TO_CLIENT_NOTIFICATION": 19,
    }
)

COMMAND_NAMES: Mapping[int, str] = MappingProxyType({v: k for k, v in ALL_SMB_CMDS.items()})

ALL_ERROR_CODES: Mapping[str, int] = MappingProxyType(
    {name: number for number, name in errno.errorcode.items()}
)


def command_name(number: int) -> str:
    """``SMB2_READ`` for 8; ``SMB2_UNKNOWN_77`` for a number outside the table."""
    return COMMAND_NAMES.get(number, f"SMB2_UNKNOWN_{number}")


def errno_name(retval: int) -> str:
    """``EACCES`` for 13 and for -13, empty for 0, ``E999`` outside the platform's table."""
    return "" if retval == 0 else errno.errorcode.get(abs(retval), f"E{abs(retval)}")
