"""What a subcommand of ``aod-shipper`` is."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass

from shipper.configuration.schema import ShipperConfig

EXIT_OK = 0
EXIT_LEFT_BEHIND = 1
EXIT_USAGE = 2


def no_arguments(parser: argparse.ArgumentParser) -> None:
    """A command without arguments of its own."""


@dataclass(frozen=True)
class Command:
    """One subcommand: ``run`` returns the exit status; ``examples`` are command lines with what
    they do. Heavy modules (boto3 above all) are imported by `run` alone."""

    name: str
    purpose: str
    run: Callable[[ShipperConfig, argparse.Namespace], int]
    details: str
    examples: tuple[tuple[str, str], ...]
    add_arguments: Callable[[argparse.ArgumentParser], None] = no_arguments
    speaks_json: bool = True

    @property
    def epilog(self) -> str:
        """The examples as help shows them."""
        width = max(len(line) for line, _ in self.examples)
        return "\n".join(
            ["examples:", *(f"  {line.ljust(width)}  {what}" for line, what in self.examples)]
        )


def print_fault(message: str, remedy: str) -> None:
    """A fault and its remedy, for people, on standard error."""
    print(f"aod-shipper: {message}\n  remedy: {remedy}", file=sys.stderr)
