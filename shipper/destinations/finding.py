"""What a preflight finds, one thing at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

State = Literal["ok", "warning", "failed"]


@dataclass(frozen=True)
class Finding:
    """One thing that shipping needs: ``step`` names it, ``detail`` says how it stands, and
    ``remedy`` what to do unless it is ok. A warning does not keep bundles from arriving."""

    step: str
    state: State
    detail: str
    remedy: str = ""


class Preflight(Protocol):
    """Something that can tell whether it is ready."""

    def check(self) -> Iterator[Finding]:
        """Try out what a delivery needs, without leaving anything behind that others see.

        Each finding comes as soon as it is known; there are no more after one that makes the
        rest pointless. Raises nothing but programming errors.
        """
