"""Takes secrets out of collected files before they are archived."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import IO, TYPE_CHECKING

from agent.redaction.block_finder import BlockFinder
from agent.redaction.identity_finder import IdentityFinder
from agent.redaction.line_finder import Finder, LineFinder
from agent.redaction.rule import Block, Rule
from agent.redaction.rules import BLOCKS, RULES
from agent.redaction.stream import Stream, Window
from agent.storage.durable_file import create_exclusive, open_plain, temporary_beside

if TYPE_CHECKING:  # it brings OpenSSL
    from agent.redaction.pseudonyms import Pseudonyms


class Redactor:
    """Replaces secrets in text by ``[redacted:<rule>]``, and names by ``pseudonyms`` if given.

    Texts are bytes of any encoding; what is no secret stays byte for byte. For one thread.
    """

    def __init__(
        self,
        pseudonyms: Pseudonyms | None = None,
        rules: tuple[Rule, ...] = RULES,
        blocks: tuple[Block, ...] = BLOCKS,
        window: Window | None = None,
    ) -> None:
        names: tuple[Finder, ...] = (IdentityFinder(pseudonyms),) if pseudonyms else ()
        self._finders: tuple[Finder, ...] = (LineFinder(rules), *names)
        self._blocks = blocks
        self._window = window or Window()

    def redact_file(self, path: Path) -> Counter[str]:
        """Redact the text file ``path`` in place; returns how much was replaced, by rule.

        The file is replaced as a whole, mode 0640, and only when it held something. It is not made
        durable. Raises `UnsafeFileError` for anything but a plain file, and OSError: the file is
        then as it was, secrets included.
        """
        stream = self.stream()
        with os.fdopen(open_plain(path), "rb") as source:
            pieces = self._pieces(source, stream)
            unchanged = 0
            for piece in pieces:
                if stream.counts:
                    _write_anew(path, source, unchanged, chain([piece], pieces))
                unchanged += len(piece)
        return stream.counts

    def redact_text(self, text: str) -> tuple[str, Counter[str]]:
        """``text`` without its secrets, and how many there were by rule."""
        stream = self.stream()
        output = stream.feed(text.encode("utf-8", "surrogateescape"), last=True)
        return output.decode("utf-8", "surrogateescape"), stream.counts

    def stream(self) -> Stream:
        """A way to redact one text that comes in pieces."""
        return Stream(self._finders, BlockFinder(self._blocks), self._window)

    def _pieces(self, source: IO[bytes], stream: Stream) -> Iterator[bytes]:
        while data := source.read(self._window.piece):
            yield stream.feed(data)
        yield stream.feed(b"", last=True)


def _write_anew(path: Path, source: IO[bytes], unchanged: int, pieces: Iterable[bytes]) -> None:
    """Replace ``path`` by the first ``unchanged`` bytes of ``source`` and the ``pieces``."""
    temporary = temporary_beside(path)
    try:
        with os.fdopen(create_exclusive(temporary), "wb") as target:
            _copy_beginning(source, target, unchanged)
            for piece in pieces:
                target.write(piece)
        temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _copy_beginning(source: IO[bytes], target: IO[bytes], size: int) -> None:
    place = 0
    while place < size:
        data = os.pread(source.fileno(), min(size - place, 1 << 20), place)
        if not data:
            raise OSError(f"{source.name} became shorter while it was read")
        target.write(data)
        place += len(data)
