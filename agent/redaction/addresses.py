"""Finds IPv4, IPv6 and hardware addresses in text."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from functools import lru_cache

_IPV4 = re.compile(rb"\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}(?!\w|\.\d+\.\d)")
# A time has two colons. This begins with a literal, which makes it ten times as fast.
_COLONS = re.compile(rb":(?::|(?:[0-9A-Fa-f]{1,4}:){3})|-(?:[0-9A-Fa-f]{2}-){4}")
# One without a digit is rather a name in C++.
_IPV6 = re.compile(
    rb"(?<![\w:.])(?=[A-Fa-f:]{0,40}\d)(?:[0-9A-Fa-f]{0,4}:){2,7}(?:[0-9A-Fa-f]{1,4}|\d{1,3}(?:\.\d{1,3}){3})?(?![\w:])"
)
_SIX = rb"[0-9A-Fa-f]{2}(?:[:-][0-9A-Fa-f]{2}){5}"
# The firewall writes MAC=<to>:<from>:<type>.
_HARDWARE = re.compile(
    rb"(?<![\w:-])" + _SIX + rb"(?![\w:-])|(?<=\bMAC=)" + _SIX + rb"|(?<=\bMAC=.{18})" + _SIX
)
_NOBODYS_HARDWARE = (b"00:00:00:00:00:00", b"ff:ff:ff:ff:ff:ff")


def address_matches(text: bytes, start: int, end: int) -> Iterator[re.Match[bytes]]:
    """The addresses in ``text[start:end]`` that name a host: not loopback, not "any", no mask."""
    for match in _IPV4.finditer(text, start, end):
        if _stands_alone(text, match.start()) and _names_host(match.group()):
            yield match
    place = start
    while colons := _COLONS.search(text, place, end):
        line_start = max(start, text.rfind(b"\n", start, colons.start()) + 1)
        line_end = text.find(b"\n", colons.start(), end)
        place = end if line_end < 0 else line_end
        for match in _IPV6.finditer(text, line_start, place):
            if _names_host(match.group()):
                yield match
        for match in _HARDWARE.finditer(text, line_start, place):
            if match.group().lower() not in _NOBODYS_HARDWARE:
                yield match


def _stands_alone(text: bytes, place: int) -> bool:
    """Whether no version or name ends right before ``place``."""
    before = text[max(0, place - 2) : place]
    if before[-1:].isalnum() or before[-1:] in (b"_", b"."):
        return False
    return not (before[-1:] == b"-" and before[:1].isalpha())


@lru_cache(maxsize=4096)
def _names_host(text: bytes) -> bool:
    try:
        address = ipaddress.ip_address(text.decode("ascii"))
    except ValueError:
        return False
    is_mask = address.version == 4 and text.startswith(b"255.")
    return not (address.is_loopback or address.is_unspecified or is_mask)
