"""Names and addresses become pseudonyms that are stable, secret, and told back by the map."""

from __future__ import annotations

import json
import re
import stat
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.redaction import pseudonyms as module
from agent.redaction.pseudonyms import PseudonymMapError, Pseudonyms
from agent.redaction.redactor import Redactor
from agent.redaction.stream import Window

NOBODY: frozenset[str] = frozenset()
NAMED = [
    ("mount: user=«alice» done", "user"),
    ("username=«svc-backup»,vers=3.0", "user"),
    ('acct="«alice»" exe=/usr/bin/su', "user"),
    ("session opened for user «carol»(uid=1001) by (uid=0)", "user"),
    ("Failed password for invalid user «dave» from here", "user"),
    ("Accepted publickey for «erin.b» from afar", "user"),
    ("logon CORP\\«frank» failed", "user"),
    ("bundle of «BOB», owner «bob» /home/«bob»/x", "user"),
    ("mounted \\\\«files»\\projects", "host"),
    ("//«files.corp.example»/projects on /mnt", "host"),
    ("smb://«files»/projects", "host"),
    ("ver=0x2;host=«files»;sec=krb5", "host"),
    ("ConnectionId: 0x1 Hostname: «files»", "host"),
    ("Nov 25 12:00:00 «laptop7» kernel: «Laptop7» up", "host"),
    ("from «10.0.3.7» port 22", "addr"),
    ("addr=«10.0.3.7»,rw", "addr"),
    ("IP «10.0.3.7».445 > «192.168.1.20».51000: Flags", "addr"),
    ("inet6 «fe80::5054:ff:fe12:3456»/64", "addr"),
    ("peer [«2001:db8::1»]:445", "addr"),
    ("full «2001:db8:1:2:3:4:5:6» form", "addr"),
    ("lladdr «52:54:00:12:34:56» REACHABLE", "addr"),
    ("MAC=«52:54:00:12:34:56»:«52:55:0a:00:02:02»:08:00 SRC=«10.0.0.5»", "addr"),
]
NAMELESS = [
    "session opened for user root(uid=0) by (uid=0)",
    "user=root USER=daemon uid=1000 username=systemd-network",
    "Failed password for root from afar",
    "127.0.0.1 127.0.1.1 0.0.0.0 255.255.255.0 ::1 :: localhost",
    "host=localhost",
    "at 12:34:56.789 and 2026-11-25T12:34:56+01:00",
    "version 1.2.3.4.5.6 v6.1.176.1 OID 1.3.6.1.5.5.2 linux-6.1.0.13-amd64",
    "std::string a::b 00:00:00:00:00:00 ff:ff:ff:ff:ff:ff",
    "SHA1 aa:bb:cc:dd:ee:ff:00:11:22:33:44:55:66:77:88:99:aa:bb:cc:dd",
    "dev-disk-by\\x2duuid https://www.debian.org/ // comment",
    "bobsled and rebob are no names",
]


@pytest.fixture(name="names")
def names_fixture(tmp_path: Path) -> Pseudonyms:
    return Pseudonyms(tmp_path / "map", frozenset({"bob", "root"}), frozenset({"laptop7"}))


@pytest.mark.parametrize(("marked", "kind"), NAMED)
def test_names_become_pseudonyms(names: Pseudonyms, marked: str, kind: str) -> None:
    output, counts = Redactor(names).redact_text(re.sub("[«»]", "", marked))

    def pseudonym(match: re.Match[str]) -> str:
        return names.of(kind, match[1].encode()).decode()

    assert output == re.sub("«(.*?)»", pseudonym, marked)
    assert counts == {f"pseudonym:{kind}": marked.count("«")}
    assert Redactor(names).redact_text(output) == (output, {})


@pytest.mark.parametrize("text", NAMELESS)
def test_what_names_nobody_stays(names: Pseudonyms, text: str) -> None:
    assert Redactor(names).redact_text(text) == (text, {})


def test_the_longest_of_names_in_one_another_wins(tmp_path: Path) -> None:
    names = Pseudonyms(tmp_path / "map", NOBODY, frozenset({"nas", "nas.example", "example"}))
    output, counts = Redactor(names).redact_text("NAS.example and nas")
    long, short = (names.of("host", name).decode() for name in (b"nas.example", b"nas"))
    assert output == f"{long} and {short}"
    assert counts == {"pseudonym:host": 2}


def test_the_map_is_made_with_its_directory(tmp_path: Path) -> None:
    Pseudonyms(tmp_path / "state" / "map", NOBODY, NOBODY)
    assert (tmp_path / "state" / "map").is_file()


def test_a_secret_goes_even_where_a_name_is_in_it(names: Pseudonyms) -> None:
    text = "user=bob,password=bob,addr=10.0.0.5 smb://bob:bob@laptop7/x"
    output, counts = Redactor(names).redact_text(text)
    assert output.count("[redacted:") == 2
    assert not re.search("bob|laptop7|10[.]0", output)
    assert counts["pseudonym:user"] == 2


def test_pseudonyms_are_stable_and_the_map_tells_them_back(tmp_path: Path) -> None:
    map_file = tmp_path / "map"
    first = Pseudonyms(map_file, NOBODY, NOBODY)
    given_out = first.of("user", b"Alice")
    assert first.of("user", b"alice") == given_out
    assert first.of("host", b"alice")[5:] != given_out[5:]
    first.save()
    assert Pseudonyms(map_file, NOBODY, NOBODY).of("user", b"alice") == given_out
    assert json.loads(map_file.read_text())["pseudonyms"][given_out.decode()] == "alice"
    assert stat.S_IMODE(map_file.stat().st_mode) == 0o600
    other = Pseudonyms(tmp_path / "other", NOBODY, NOBODY)
    assert other.of("user", b"alice") != given_out


def test_two_that_share_a_map_lose_no_name(tmp_path: Path) -> None:
    barrier, made = threading.Barrier(8), []

    def give(number: int) -> None:
        barrier.wait()
        own = Pseudonyms(tmp_path / "map", NOBODY, NOBODY)
        made.append(own.of("user", b"same"))
        own.of("user", b"u%d" % number)
        own.save()

    threads = [threading.Thread(target=give, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == 1
    kept = json.loads((tmp_path / "map").read_text())["pseudonyms"]
    assert set(kept.values()) == {"same", *(f"u{number}" for number in range(8))}


def test_the_map_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_NAMES", 5)
    names = Pseudonyms(tmp_path / "map", NOBODY, NOBODY)
    given_out = {names.of("addr", b"%d" % number) for number in range(20)}
    names.save()
    assert len(given_out) == 20
    assert len(json.loads((tmp_path / "map").read_text())["pseudonyms"]) == 5


@pytest.mark.parametrize("damage", ["", "{}", "[]", '{"key": "00", "pseudonyms": {}}', "\0"])
def test_a_damaged_map_is_an_error_and_stays(tmp_path: Path, damage: str) -> None:
    (tmp_path / "map").write_text(damage)
    with pytest.raises(PseudonymMapError):
        Pseudonyms(tmp_path / "map", NOBODY, NOBODY)
    assert (tmp_path / "map").read_text() == damage


FRAGMENTS = st.sampled_from([re.sub("[«»]", "", text) for text, _ in NAMED] + NAMELESS)


@given(st.lists(st.one_of(FRAGMENTS, st.text(max_size=20))), st.integers(1, 300))
def test_pieces_and_passes_do_not_matter(
    tmp_path_factory: pytest.TempPathFactory, fragments: list[str], size: int
) -> None:
    known = frozenset({"bob", "user", "redacted"})
    map_file = tmp_path_factory.getbasetemp() / "shared-map"
    names = Pseudonyms(map_file, known, frozenset({"laptop7", "host", "addr"}))
    text = "\n".join(fragments).encode("utf-8", "surrogateescape")
    once = Redactor(names).stream().feed(text, last=True)
    stream = Redactor(names, window=Window(piece=size)).stream()
    pieces = [stream.feed(text[place : place + size]) for place in range(0, len(text), size)]
    assert b"".join([*pieces, stream.feed(b"", last=True)]) == once
    assert Redactor(names).stream().feed(once, last=True) == once
