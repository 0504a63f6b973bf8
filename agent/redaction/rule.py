"""What a rule of redaction is, and the pieces that the rules' patterns are made of."""

from __future__ import annotations

import re
from dataclasses import dataclass

# What ends a word: a line of /proc/*/cmdline has NUL between its words.
BLANK = rb"[ \t\r\f\v\x00]"
NO_BLANK = rb"[^\s\x00]"
STOP = rb"(?:[\s\x00]|$)"

# Flags of mount options that may follow a password; options with a value are known by their "=".
_FLAGS = (
    rb"(?:r[ow]|no[a-z]{3,16}|_netdev|defaults|soft|hard|seal|signloosely|sign|multiuser|mfsymlinks|"
    rb"sfu|fsc|relatime|user|users|guest|intr|forceuid|forcegid|cifsacl|idsfromsid|modefromsid|"
    rb"dynperm|serverino|mapposix|mapchars|persistenthandles|resilienthandles|multichannel|posix|"
    rb"unix|linux|perm|acl|exec|suid|dev|sync|async|dirsync|mand|auto|strictatime|lazytime)"
)
_NEXT = rb"(?:" + STOP + rb"|[\w.-]{1,64}=|" + _FLAGS + rb"(?![\w.-]))"
_CLOSE = rb"(?:[\"')\]},;:.>]{0,8}" + STOP + rb"|[,;:&]\s?[\"'\w\\{\[]|[\"'\]})]{0,8}</)"
_UNQUOTED = (
    rb"(?![\"'])(?:[^\s\x00\"',;&)\]}<>\\]|\\(?![\"'])|[,;&](?!"
    + _NEXT
    + rb")|[\"')\]}>](?!"
    + _CLOSE
    + rb")|<(?!/))+"
)

# After an optional quote: up to its partner, else a word. A comma, semicolon or ampersand belongs
# to the word unless an option, a flag or a blank follows it.
QUOTE = rb"(?:\\?[\"'])?"
VALUE = (
    rb"(?:(?<=\\[\"'])[^\"'\\\n]+|(?<=(?<!\\)\")(?:[^\"\\\n]|\\.)+|"
    rb"(?<=(?<!\\)')(?:[^'\\\n]|\\.)+|" + _UNQUOTED + rb")"
)
SEPARATOR = rb"\\?[\"']?" + BLANK + rb"*(?:=>|:=|=|:(?!:))" + BLANK + rb"*" + QUOTE

# What stands where a value is expected and is none: masks, references, and the words of sentences.
# Of a private key the frame stays, by a rule of its own: it tells where the key ends.
NO_SECRET = (
    rb"(?!-----BEGIN )"
    rb"(?!(?:\*+|x{3,}|\.{3}|-|<[a-z _-]+>|\(null\)|\(none\)|\(unknown\)|\$\{\w+\}|\{\{|%[sdpu]|"
    rb"y|n|yes|no|true|false|on|off|none|null|nil|set|unset|not|is|was|are|has|must|may|can|cannot|"
    rb"could|should|will|the|a|an|and|or|for|to|of|in|at|this|your|you|please|enter|empty|ask|"
    rb"prompt|required|optional|enabled|disabled|expired|invalid|incorrect|wrong|changed|accepted|"
    rb"rejected|failed|failure|success|ok|ignored|missing|unknown|unchanged|authentication|"
    rb"permission|access|password|verification|minimum|maximum|expiry|expires|change|unexpected|"
    rb"unrecognized|error|never|hidden|masked|redacted|string|int|bytes?|bool|default)"
    rb"(?:[\"'\\,;.:)\]}!?]*" + STOP + rb"|[\"'\\),;&]))"
)


@dataclass(frozen=True)
class Rule:
    """One kind of secret that stands in one line.

    ``pattern`` matches within a line; its groups are alternatives for the secret itself: what the
    match has around the group is kept. ``hints`` are literals of which every match's line has one,
    in lower case unless the pattern minds the case: only lines with a hint are looked at.

    Anyone may write the line at which a pattern is slowest: its work per byte has to be bounded. So
    where it can begin again and again, it looks at no unbounded run that the others look at too.
    """

    name: str
    hints: tuple[bytes, ...]
    pattern: re.Pattern[bytes]
    kept: str
    why: str

    @property
    def minds_case(self) -> bool:
        """Whether ``hints`` are to be searched in the text as it is."""
        return not self.pattern.flags & re.IGNORECASE


@dataclass(frozen=True)
class Block:
    """One kind of secret that goes over lines: those that match ``body`` after one that matches
    ``begins``, until one that matches ``ends``, or until many came that look like none of it.

    ``hint`` is a literal of every first line, in lower case. A group of ``body`` is the secret.
    With ``found_from_end`` the end alone, which has the hint too, tells that lines before it were
    such a block's.
    """

    name: str
    hint: bytes
    begins: re.Pattern[bytes]
    body: re.Pattern[bytes]
    ends: re.Pattern[bytes]
    kept: str
    why: str
    found_from_end: bool = False


def assigned(*words: bytes) -> tuple[bytes, ...]:
    """Hints for ``words`` that a value is assigned to."""
    signs = (b"=", b":", b'"', b"'", b"\\", b" =", b" :", b"\t")
    return tuple(word + sign for word in words for sign in signs)


def any_of(hints: bytes) -> tuple[bytes, ...]:
    """Hints, written with | between them."""
    return tuple(hints.split(b"|"))


_PIECES = {
    b"{blank}": BLANK,
    b"{gap}": BLANK + rb"+",
    b"{word}": NO_BLANK,
    b"{quote}": QUOTE,
    b"{separator}": SEPARATOR,
    b"{no_secret}": NO_SECRET,
    b"{value}": VALUE,
    b"{secret}": NO_SECRET + rb"(" + VALUE + rb")",
}


def any_case(pattern: bytes) -> re.Pattern[bytes]:
    """The pattern, whatever the case. ^ and $ are a line's; {secret} and others are filled in."""
    return re.compile(_filled_in(pattern), re.IGNORECASE | re.MULTILINE)


def same_case(pattern: bytes) -> re.Pattern[bytes]:
    """The pattern, minding the case; else as `any_case`."""
    return re.compile(_filled_in(pattern), re.MULTILINE)


def _filled_in(pattern: bytes) -> bytes:
    for name, piece in _PIECES.items():
        pattern = pattern.replace(name, piece)
    return pattern
