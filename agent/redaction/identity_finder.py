"""Finds the names of users and hosts, and addresses, and gives them their pseudonyms."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.redaction.addresses import address_matches
from agent.redaction.line_finder import lines_with
from agent.redaction.rule import any_case, same_case
from agent.redaction.span import MARK, Span

if TYPE_CHECKING:  # it brings OpenSSL
    from agent.redaction.pseudonyms import Pseudonyms

# Accounts that every system has: they name nobody.
SYSTEM_USERS = frozenset(
    b"root daemon bin sys sync games man lp mail news uucp proxy www-data backup list irc gnats "
    b"nobody nfsnobody sshd messagebus dbus polkitd syslog _apt tss rtkit avahi chrony ntp gdm "
    b"lightdm postfix rpc rpcuser statd dnsmasq apache nginx mysql postgres redis sssd unbound "
    b"cron operator adm shutdown halt ftp guest user unknown none null invalid illegal".split()
)
SYSTEM_HOSTS = frozenset(b"localhost localhost.localdomain unknown none null".split())

_NAME = rb"([A-Za-z_][\w-]{0,40}(?:\.[\w-]{1,40}){0,4}\$?)"
_HOST = rb"([A-Za-z0-9][\w-]{0,62}(?:\.[\w-]{1,62}){0,6})"
_IS_NUMERIC = re.compile(rb"[\d.]+")
_NO_WORD = bytes(c if chr(c).isalnum() and c < 128 else ord(" ") for c in range(256))
_AFTER_ALL_RULES = 1_000


@dataclass(frozen=True)
class _Place:
    """Where the text itself tells that a name of ``kind`` stands, in the pattern's group."""

    kind: str
    hints: tuple[bytes, ...]
    pattern: re.Pattern[bytes]


_PLACES: tuple[_Place, ...] = (
    _Place(
        "user",
        (b"user", b"acct", b"login", b"logname"),
        any_case(rb"\b(?:r|l|e|su)?(?:user(?:name)?|acct|login|logname)=\\?[\"']?" + _NAME),
    ),
    _Place(
        "user",
        (b"user", b" for ", b" as "),
        any_case(
            rb"\b(?:for|of|from|by) (?:invalid |illegal )?user [\"']?"
            + _NAME
            + rb"(?=[^\w]|$)|\bfor "
            + _NAME
            + rb" from |\buser '"
            + _NAME
            + rb"'"
        ),
    ),
    _Place(
        "user",
        (b"\\",),
        same_case(
            rb"(?<![\\\w.-])[A-Z][A-Z0-9.-]{1,14}\\{1,2}(?!x[0-9a-f]{2})" + _NAME + rb"(?![\\\w])"
        ),
    ),
    _Place(
        "host",
        (b"\\\\", b"//"),
        any_case(
            rb"(?<![\\\w])\\{2,4}"
            + _HOST
            + rb"(?=\\|\s|$)|(?<![:/\w])//"
            + _HOST
            + rb"/|(?:smb|cifs)://(?:[^@/\s]{0,256}@)?"
            + _HOST
        ),
    ),
    _Place(
        "host",
        (b"host", b"server="),
        any_case(rb"\b(?:r?host(?:name)?|server)(?:=|: )\\?[\"']?" + _HOST + rb"(?![\w:])"),
    ),
)


class IdentityFinder:
    """The names in a text, as spans that hold their pseudonyms: names known beforehand, names in
    places that tell what they are, and addresses. System accounts and loopback stay."""

    def __init__(self, pseudonyms: Pseudonyms) -> None:
        self._pseudonyms = pseudonyms
        self._known = [
            *_known("host", pseudonyms.known_hosts, SYSTEM_HOSTS),
            *_known("user", pseudonyms.known_users, SYSTEM_USERS),
        ]

    def spans(self, text: bytes, start: int, end: int) -> Iterator[Span]:
        """The names in ``text[start:end]``."""
        lowered = text.lower()
        yield from self._known_names(lowered, start, end)
        for place in _PLACES:
            for line_start, line_end in lines_with(place.hints, lowered, start, end):
                for match in place.pattern.finditer(text, line_start, line_end):
                    if names_somebody(place.kind, match.group(match.lastindex or 0)):
                        yield self._span(place.kind, match, match.lastindex or 0)
        for match in address_matches(text, start, end):
            yield self._span("addr", match, 0)

    def _known_names(self, lowered: bytes, start: int, end: int) -> Iterator[Span]:
        words = set(lowered[start:end].translate(_NO_WORD).split())
        for kind, first_word, pattern in self._known:
            if first_word in words:
                for match in pattern.finditer(lowered, start, end):
                    yield self._span(kind, match, 0)

    def _span(self, kind: str, match: re.Match[bytes], group: int) -> Span:
        start, end = match.span(group)
        pseudonym = self._pseudonyms.of(kind, match.group(group))
        name, rank = f"pseudonym:{kind}", _AFTER_ALL_RULES - (end - start)  # the longest wins
        return Span(start, end, name, pseudonym, rank, match.start(), match.end())


def names_somebody(kind: str, name: bytes) -> bool:
    """Whether ``name`` is neither an account nor a host that every system has, nor a number, nor
    what an earlier redaction left."""
    folded = name.lower()
    if _IS_NUMERIC.fullmatch(folded) or MARK.fullmatch(name) or folded.startswith(b"systemd-"):
        return False
    return folded not in (SYSTEM_USERS if kind == "user" else SYSTEM_HOSTS)


def _known(
    kind: str, names: frozenset[str], but: frozenset[bytes]
) -> Iterator[tuple[str, bytes, re.Pattern[bytes]]]:
    """By name: kind, first word, pattern."""
    for name in sorted(names):
        folded = name.lower().encode("utf-8", "surrogateescape")
        words = folded.translate(_NO_WORD).split()
        if words and folded not in but:
            name_itself = re.escape(folded)
            # A pattern that begins with the literal is searched ten times as fast.
            alone = name_itself + rb"(?<![^\W_]" + name_itself + rb")(?![^\W_])"
            yield kind, words[0], re.compile(alone)
