"""What becomes of the lines that let hosts into a relay, when some come and others go."""

from __future__ import annotations

from typing import Any

import pytest

from shipper.relay.authorized_key import authorized_line
from shipper.relay.cli import INBOX, PROGRAM
from shipper.relay.limits import Limits
from tests.fleet.module_code import module_code

KEYS = module_code("module_utils.authorized_keys")
BY_HAND = "# bastion\nssh-ed25519 AAAAbastion ops"


def line(host: str, key: str, client: str = "", limits: Limits = Limits()) -> str:  # noqa: B008
    text = authorized_line(f"ssh-ed25519 {key}", host, INBOX, PROGRAM, limits)
    return f"{text} ansible:{client}" if client else text


def merge(present: str, *wanted: str, **changes: Any) -> Any:
    settings = {"absent": set(), "known": {"a.lan", "b.lan"}, "purge": False, **changes}
    lines = [KEYS.parse(text) for text in present.splitlines()]
    return KEYS.merge(lines, [KEYS.parse(text) for text in wanted], **settings)


def texts(merged: Any) -> list[str]:
    return [entry.text for entry in merged.entries]


def test_a_line_that_the_relay_prints_is_understood() -> None:
    entry = KEYS.parse(line("web-1", "AAAA", "a.lan", Limits(max_host_mb=1)))
    assert (entry.host, entry.key, entry.client) == ("web-1", "ssh-ed25519 AAAA", "a.lan")
    assert KEYS.parse(line("web-1", "AAAA")).client is None
    assert KEYS.parse("# a comment").host == ""


def test_the_same_again_changes_nothing() -> None:
    a, b = line("web-1", "AAAA", "a.lan"), line("web-2", "BBBB", "b.lan")
    merged = merge(f"{BY_HAND}\n{a}\n{b}", b, a)
    assert texts(merged) == [*BY_HAND.splitlines(), a, b]
    assert (merged.refused, merged.unknown) == ({}, [])


def test_a_new_key_quota_or_name_takes_the_old_line_s_place() -> None:
    old, other = line("web-1", "AAAA", "a.lan"), line("web-2", "BBBB", "b.lan")
    for new in (
        line("web-1", "CCCC", "a.lan"),
        line("web-1", "AAAA", "a.lan", Limits(max_host_mb=1)),
        line("web-9", "AAAA", "a.lan"),
    ):
        assert texts(merge(f"{old}\n{other}", new)) == [new, other]


@pytest.mark.parametrize("old", [line("web-1", "AAAA"), line("x", "AAAA")])
def test_a_line_made_by_hand_becomes_ansible_s(old: str) -> None:
    new = line("web-1", "AAAA", "a.lan")
    assert texts(merge(f"{BY_HAND}\n{old}", new)) == [*BY_HAND.splitlines(), new]


@pytest.mark.parametrize("old", [line("web-1", "CCCC"), line("web-1", "CCCC", "before.lan")])
def test_a_name_alone_gives_nobody_the_folder_of_another_key(old: str) -> None:
    merged = merge(old, line("web-1", "AAAA", "a.lan"))
    assert texts(merged) == [old]
    assert "is let to another key" in merged.refused["a.lan"]


def test_a_host_that_is_called_otherwise_in_the_inventory_now_keeps_its_folder() -> None:
    old, new = line("web-1", "AAAA", "before.lan"), line("web-1", "AAAA", "a.lan")
    assert texts(merge(old, new)) == [new]


def test_two_hosts_share_neither_folder_nor_key() -> None:
    a = line("web-1", "AAAA", "a.lan")
    for bad, reason in (
        (line("web-1", "BBBB", "b.lan"), "is called web-1, too"),
        (line("web-2", "AAAA", "b.lan"), "one machine was copied"),
    ):
        for merged in (merge(a, bad), merge("", a, bad)):
            assert texts(merged) == [a]
            assert reason in merged.refused["b.lan"]


def test_who_is_gone_loses_the_line() -> None:
    a, stranger = line("web-1", "AAAA", "a.lan"), line("web-3", "CCCC", "c.lan")
    present = f"{BY_HAND}\n{a}\n{stranger}"
    assert texts(merge(present, absent={"a.lan"})) == [*BY_HAND.splitlines(), stranger]
    kept = merge(present)
    assert (texts(kept), kept.unknown) == (present.splitlines(), ["c.lan"])
    purged = merge(present, purge=True)
    assert (texts(purged), purged.unknown) == ([*BY_HAND.splitlines(), a], [])
    assert texts(merge(present, purge=True, known=None)) == present.splitlines()
