"""What both ends of the hop have to know: the version of their words, and the words for faults."""

from __future__ import annotations

from typing import Literal

PROTOCOL = 1

# What rsync asks for by itself when it speaks to a daemon over ssh.
UPLOAD = "rsync --server --daemon ."

# full and busy pass by themselves; missing and bundle: send the archive again; denied and relay
# need somebody.
Kind = Literal["full", "busy", "missing", "bundle", "denied", "relay"]
