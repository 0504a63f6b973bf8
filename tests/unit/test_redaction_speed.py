"""No text takes redaction more than a bounded time per byte: it would stop the whole agent.

Times are this process's own, and are compared with each other only.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from agent.redaction.pseudonyms import Pseudonyms
from agent.redaction.redactor import Redactor
from agent.redaction.rule import Rule
from agent.redaction.rules import RULES
from tests.redaction_corpus import examples

SIZE, GROWTH = 4 << 10, 4
# What patterns look for, and what they may look at again and again.
SUFFIXES = (b" ", b"=", b"a", b"0", b"\0", b")", b"[", b" -a", b":a,ro,", b"'", b"\0-u")
PLAIN = b"Nov 25 14:03:28 client-7 kernel: CIFS: VFS: Send error in read = -13\n"
# Of names and addresses, and of what goes over lines.
OTHER_SEEDS = (
    b"user=", b"for invalid user ", b"for ", b"user '", b" CORP\\", b"\\\\", b"//a", b"smb://",
    b"host=", b"server: ", b"1.2.3.4", b"a:b:c:1", b"::", b"-aa-bb-cc-dd-", b"MAC=", b"client-7",
    b"private-\n", b"private key\n", b"----BEGIN PRIVATE KEY----\n", b"----END PRIVATE KEY----\n",
    b"A" * 64 + b"\n", b"Private-Lines: 1\n", b"9 bytes of data in key:\n", b"[redacted:a]",
)  # fmt: skip

Work = Callable[[bytes], object]


def spent(work: Work, text: bytes, times: int = 1) -> float:
    """The least processor time of several runs, in seconds."""
    measured = []
    for _ in range(times):
        begin = time.process_time()
        work(text)
        measured.append(time.process_time() - begin)
    return min(measured)


@pytest.fixture(scope="module")
def plain_sec() -> float:
    """What all rules together take for ``SIZE`` bytes of a journal."""
    text = repeated(PLAIN, SIZE)
    return sum(spent(partial(search, rule), text, 3) for rule in RULES)


def search(rule: Rule, text: bytes) -> None:
    for _ in rule.pattern.finditer(text):
        pass


def repeated(unit: bytes, size: int) -> bytes:
    return unit * (size // len(unit))


def assert_bounded(work: Work, seed: bytes, plain_sec: float) -> None:
    """``work`` may take what all rules take for plain text; what takes longer may not take more
    than a few times as long, nor grow faster than its text."""
    for suffix in SUFFIXES:
        for head, unit in ((b"", seed + suffix), (seed, suffix)):
            text = head + repeated(unit, SIZE)
            if spent(work, text) < plain_sec / 2:
                continue
            once = spent(work, text, 3)
            assert once < 6 * plain_sec, (head, unit)
            longer = spent(work, head + repeated(unit, GROWTH * SIZE), 2)
            assert longer < 2 * GROWTH * once + plain_sec, (head, unit)


def seeds(rule: Rule) -> set[bytes]:
    """What of its lines tells the rule that a secret comes, also as words of a command line."""
    told = {
        example.line.partition(example.secrets[0])[0].encode()
        for example in examples()
        if example.rule == rule.name
    }
    hints = {hint.rstrip(b" \t=:\\\"'") or hint for hint in rule.hints}
    return {*hints, *told, *(text.replace(b" ", b"\0") for text in told)} - {b""}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_no_line_is_slow_for_a_rule(rule: Rule, plain_sec: float) -> None:
    for seed in sorted(seeds(rule)):
        assert_bounded(partial(search, rule), seed, plain_sec)


@pytest.mark.parametrize("seed", OTHER_SEEDS, ids=repr)
def test_no_text_is_slow_for_names_and_blocks(
    seed: bytes, plain_sec: float, tmp_path: Path
) -> None:
    names = Pseudonyms(tmp_path / "map.json", frozenset({"alice"}), frozenset({"client-7"}))
    redactor = Redactor(names)
    assert_bounded(lambda text: redactor.stream().feed(text, last=True), seed, plain_sec)


def test_blocks_search_a_text_once_for_a_hint(plain_sec: float) -> None:
    redactor = Redactor(rules=())
    texts = [repeated(b"private-\n", size << 10) for size in (256, 1024)]
    once, longer = (
        spent(lambda text: redactor.stream().feed(text, last=True), text) for text in texts
    )
    assert longer < 8 * once + plain_sec
