"""What the documents tell a person to type is there."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.cli import build_parser as agent_parser
from shipper.cli import build_parser as shipper_parser
from shipper.relay.cli import build_parser as relay_parser

PROJECT = Path(__file__).parents[2]
DOCUMENTS = [PROJECT / "README.md", PROJECT / "ansible/README.md", *PROJECT.glob("docs/**/*.md")]
PARSERS = {"aod-agent": agent_parser, "aod-shipper": shipper_parser, "aod-relay": relay_parser}
_CODE = re.compile(r"```.*?```|`[^`]+`", re.S)
# At the beginning of a line, or of code within one.
_COMMAND = re.compile(
    r"^`?(?:sudo -u \S+ )?(?:/opt/aod/current/bin/)?"
    r"(aod-(?:agent|shipper|relay)) ([a-z][a-z-]+)((?: --[a-z-]+)*)",
    re.M,
)


def commands_in(document: Path) -> Iterator[tuple[str, str, list[str]]]:
    """Program, subcommand and the options that follow at once."""
    for code in _CODE.findall(document.read_text()):
        for program, command, options in _COMMAND.findall(code):
            yield program, command, options.split()


def subcommands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    (action,) = (one for one in parser._actions if isinstance(one, argparse._SubParsersAction))
    return dict(action.choices)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.stem)
def test_documented_commands_are_there(document: Path) -> None:
    for program, command, options in commands_in(document):
        known = subcommands(PARSERS[program]())
        assert command in known, f"{program} {command}"
        for option in options:
            assert option in known[command]._option_string_actions, f"{program} {command} {option}"


def test_documents_are_read() -> None:
    found = {program for document in DOCUMENTS for program, *_ in commands_in(document)}
    assert found == set(PARSERS)
