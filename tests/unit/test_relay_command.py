"""``aod-relay`` as an operator uses it: who gets a line, and what the inbox shows."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from shipper.relay.authorized_key import (
    PROGRAM,
    UsageError,
    authorized_line,
    check_path,
    read_public_key,
)
from shipper.relay.cli import INBOX, main
from shipper.relay.limits import Limits
from tests.shipper_support import add_bundle, new_spool

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKa+2yB6WGkTG6XBE4b4bCkSdsVDmgHUUGkzUb6HJVlz"
OTHER = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJzWY6kWmuyHuuR9hGySdMZw8oXsOvQWCeuKo8UWo3vF"

HOSTILE_HOSTS = [
    *("", ".", "..", "../web-18", "/etc", "web/17", "-oProxyCommand=x", ".hidden", "web 17"),
    *('web"17', "web'17", "web`id`", "web$HOME", "web;id", "web\n17", "web\t17", "wéb", "web\\17"),
    *("a" * 129, "web-17,restrict", "web%17", "web#17", "web-17.", "_web"),
]


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "shipper.relay.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_a_line_restricts_the_key_to_the_one_command(tmp_path: Path) -> None:
    path = tmp_path / "key.pub"
    path.write_text(f"{KEY} root@web-17\n")
    answer = run("authorize", "--host", "web-17", "--max-host-mb", "8192", path)
    assert (answer.returncode, answer.stderr) == (0, "")
    options, line = answer.stdout.strip().split(" ssh-ed25519 ", 1)
    assert options == (
        f'restrict,command="{PROGRAM} receive --inbox {INBOX} --host web-17 --max-host-mb 8192"'
    )
    assert f"ssh-ed25519 {line}" == f"{KEY} web-17"


def test_lines_of_many_hosts_are_those_of_each_and_a_bad_one_is_told_apart(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    requests = [
        {"host": "web-17", "key": f"{KEY} root@web-17", "max_host_mb": 8192},
        {"host": "web 18", "key": OTHER},
        {"host": "web-19", "key": "-----BEGIN OPENSSH PRIVATE KEY-----"},
        {"host": "web-20", "key": OTHER, "min_free_mb": "1 --inbox /etc"},
        {"host": "web-21", "key": OTHER, "quota": 1},
        "web-22",
        {"host": "web-23", "key": OTHER},
    ]
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(requests)))
    assert main(["authorize-many"]) == 0
    answers = json.loads(capsys.readouterr().out)
    assert answers[0] == {
        "line": authorized_line(KEY, "web-17", INBOX, PROGRAM, Limits(max_host_mb=8192))
    }
    assert answers[-1] == {"line": authorized_line(OTHER, "web-23", INBOX, PROGRAM, Limits())}
    problems = ["cannot be used", "private key", "not a number", "no such limit", "an object"]
    for answer, problem in zip(answers[1:-1], problems, strict=True):
        assert list(answer) == ["refused"]
        assert problem in answer["refused"]


@pytest.mark.parametrize("host", HOSTILE_HOSTS)
def test_a_host_name_that_is_no_plain_name_gets_no_line(host: str) -> None:
    with pytest.raises(UsageError, match="cannot be used"):
        authorized_line(KEY, host, INBOX, PROGRAM, Limits())


@pytest.mark.parametrize("path", ["inbox", "/", "/a/../b", "/a b", '/a"b', "/a$b", "/a\nb", "/a%b"])
def test_a_path_that_needs_quotes_gets_no_line(path: str) -> None:
    with pytest.raises(UsageError, match="cannot be used"):
        check_path(Path(path), "inbox")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (f'command="/bin/sh" {KEY}\n', "does not begin with a key's type"),
        (f"cert-authority {KEY}\n", "does not begin with a key's type"),
        (f"{KEY}\n{OTHER}\n", "holds 2 keys"),
        (f'{KEY} x\r{OTHER} command="id"\n', "holds 2 keys"),
        ("", "holds 0 keys"),
        ("# a comment\n", "holds 0 keys"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----\n", "private key"),
        ("ssh-ed25519 AAAA\n", "damaged"),
        (f"ssh-rsa {KEY.split()[1]}\n", "damaged"),
        (f"{KEY[:-3]}\x00\n", "damaged"),
        ("ssh-ed25519 ключ\n", "beyond ASCII"),
        (f"{KEY}\n" + "#" * 20_000, "holds 1 keys"),
    ],
)
def test_what_is_not_one_plain_key_is_refused(tmp_path: Path, content: str, problem: str) -> None:
    path = tmp_path / "key.pub"
    path.write_bytes(content.encode())
    with pytest.raises(UsageError, match=problem):
        read_public_key(path)


def test_hosts_shows_what_waits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spool = new_spool(tmp_path / "web-17")
    shipped, waiting = add_bundle(spool), add_bundle(spool, b"12345")
    spool.write_receipt(shipped.id, {"id": shipped.id})
    new_spool(tmp_path / "web-18")
    (tmp_path / "web-17" / "accepted").touch()
    assert main(["hosts", "--inbox", str(tmp_path), "--json"]) == 0
    busy, idle = json.loads(capsys.readouterr().out)
    assert (busy["host"], busy["waiting"], busy["bytes"]) == ("web-17", 1, waiting.size)
    assert busy["last_accepted"].endswith("+00:00")
    assert (idle["waiting"], idle["last_accepted"], idle["last_heartbeat"]) == (0, None, None)
    assert main(["hosts", "--inbox", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:3] for line in lines[1:]] == [["web-17", "1", "5"], ["web-18", "0", "0"]]


def test_the_help_teaches_and_wrong_usage_is_2(tmp_path: Path) -> None:
    assert "authorize --host" in run("--help").stdout
    assert run("receive").returncode == 2
    assert run("authorize", "--host", "../x", tmp_path / "key").returncode == 1  # no such file
    (tmp_path / "key").write_text(KEY)
    refused = run("authorize", "--host", "../x", tmp_path / "key")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "--host x" in refused.stderr


def test_a_session_starts_without_the_heavy_libraries() -> None:
    code = "import sys, shipper.relay.session, shipper.relay.cli; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"boto3", "botocore", "numpy", "yaml", "zstandard", "tenacity"} & set(loaded)
