"""The bundles whose receipt or tombstone was folded away, as two numbers in one small file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from agent.storage.durable_file import TEMPORARY_SUFFIX, publish_bytes, read_plain


class BadHistoryError(OSError):
    """The file holds something else: without it no count of the spool would be true."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"{path} is no history of a spool; restore it, or remove it and lose the counts of "
            "the bundles that are more than two weeks old"
        )


@dataclass(frozen=True)
class History:
    """How many bundles were folded away, by fate.

    ``folding`` are ids among them whose files may still be there: those count no more.
    """

    delivered: int = 0
    evicted: int = 0
    folding: frozenset[str] = frozenset()


class HistoryFile:
    """Read by agent and shipper, written by the agent alone. One writer; any number of readers."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> History:
        """What was written last; nothing folded when there is no file.

        Raises OSError; `BadHistoryError` when the file makes no sense.
        """
        try:
            return _parse(json.loads(read_plain(self._path)))
        except FileNotFoundError:
            return History()
        except (ValueError, TypeError, LookupError, RecursionError) as error:
            raise BadHistoryError(self._path) from error

    def write(self, history: History) -> None:
        """Replace it, durably; a temporary that a killed run left goes. Raises OSError."""
        for leftover in self._path.parent.glob(f".{self._path.name}.*{TEMPORARY_SUFFIX}"):
            leftover.unlink(missing_ok=True)
        document = {
            "delivered": history.delivered,
            "evicted": history.evicted,
            "folding": sorted(history.folding),
        }
        publish_bytes(self._path, json.dumps(document).encode() + b"\n")


def _parse(document: dict[str, object]) -> History:
    delivered, evicted, folding = (document[key] for key in ("delivered", "evicted", "folding"))
    if type(delivered) is not int or type(evicted) is not int or min(delivered, evicted) < 0:
        raise ValueError("no counts")
    if not isinstance(folding, list) or not all(isinstance(one, str) for one in folding):
        raise ValueError("no list of ids")
    return History(delivered, evicted, frozenset(folding))
