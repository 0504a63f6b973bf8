"""One conformance test over all subcommands of ``aod-shipper``."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from shipper.cli import COMMANDS, build_parser, main
from shipper.commands.command import Command

DOCS = Path(__file__).parents[2] / "docs" / "shipping.md"


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_help_teaches_with_examples_that_work(command: Command, capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command.name, "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert "examples:" in text
    for line, _ in command.examples:
        assert line in text
        for part in re.split(r"&&|\|", line):
            words = shlex.split(part.replace("watch ", ""))
            if words[0] == "aod-shipper":
                options = build_parser().parse_args(words[1:])
                assert options.command is command or "&&" in line


def test_names_are_told_apart_and_documented() -> None:
    names = [command.name for command in COMMANDS]
    assert len(set(names)) == len(names)
    text = DOCS.read_text()
    for name in names:
        assert f"`aod-shipper {name}" in text, name


def test_command_line_loads_no_heavy_module() -> None:
    """boto3 takes a second: a status must not wait for it, nor need it for a directory."""
    script = (
        "import sys, shipper.cli; "
        "print(*{'boto3', 'botocore', 'tenacity', 'numpy', 'zstandard', 'http'} & {*sys.modules})"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert result.stdout == "\n"


def test_without_boto3_it_says_what_to_install(tmp_path, monkeypatch, capsys) -> None:
    path = tmp_path / "s3.yaml"
    path.write_text("spool: /s\ndestination: {type: s3, bucket: evidence}\n")
    for name in [name for name in sys.modules if name.startswith(("boto", "shipper.s3"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "boto3", None)
    monkeypatch.setitem(sys.modules, "botocore", None)
    for name in ("status", "fleet", "metrics"):
        assert main([name, "--config", str(path)]) == 2
        assert "install aod-fleet[shipper]" in capsys.readouterr().err
