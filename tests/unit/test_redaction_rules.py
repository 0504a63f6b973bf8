"""No secret of the corpus remains, look-alikes stay, and every rule is needed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from agent.redaction.redactor import Redactor
from agent.redaction.rules import BLOCKS, RULES
from tests.redaction_corpus import Example, examples, look_alikes
from tests.unit.test_redaction_blocks import BLOCK_EXAMPLES

DOCS = Path(__file__).parents[2] / "docs" / "redaction.md"


def leaks(redactor: Redactor, example: Example) -> bool:
    output, _ = redactor.redact_text(example.line)
    return any(part in output for part in parts(example))


def parts(example: Example) -> list[str]:
    """The words of the secrets, those left out that are too short to tell anything."""
    words = [word for secret in example.secrets for word in secret.split() if len(word) >= 4]
    return words or example.secrets


@pytest.mark.parametrize("example", examples(), ids=lambda example: example.line[:60])
def test_the_secret_goes_and_the_rest_stays(example: Example) -> None:
    output, counts = Redactor().redact_text(example.line)
    assert output == example.redacted
    assert example.secrets
    assert not any(secret in output for secret in example.secrets)
    assert counts == {example.rule: len(example.secrets)}


def test_the_corpus_is_large() -> None:
    assert len({example.line for example in examples()}) >= 200
    assert len(set(look_alikes())) >= 200


def test_look_alikes_stay() -> None:
    touched = [line for line in look_alikes() if Redactor().redact_text(line)[1]]
    assert touched == []
    whole = "\n".join(look_alikes())
    assert Redactor().redact_text(whole)[0] == whole


def test_secrets_go_from_one_text_with_all_of_them() -> None:
    """Neighbours neither hide one another nor what stands around them."""
    lines = [example for example in examples() if not cut_key(example)]
    output, _ = Redactor().redact_text("\n".join(example.line for example in lines))
    assert output.splitlines() == [example.redacted for example in lines]


def cut_key(example: Example) -> bool:
    """A key without its end takes what looks like its lines from those that follow."""
    return example.rule == "private-key-line" and "-----END" not in example.line


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_without_a_rule_something_leaks(rule: object) -> None:
    lacking = Redactor(rules=tuple(other for other in RULES if other is not rule))
    assert any(leaks(lacking, example) for example in examples())


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.name)
def test_without_a_block_something_leaks(block: object) -> None:
    lacking = Redactor(blocks=tuple(other for other in BLOCKS if other is not block))
    assert any(leaks(lacking, example) for example in BLOCK_EXAMPLES)


def test_names_are_unique_and_every_match_has_a_hint() -> None:
    names = [rule.name for rule in (*RULES, *BLOCKS)]
    assert len(set(names)) == len(names)
    for rule in RULES:
        wanted = rule.hints if rule.minds_case else tuple(hint.lower() for hint in rule.hints)
        assert rule.hints == wanted
        for example in examples():
            line = example.line.encode()
            if rule.pattern.search(line):
                searched = line if rule.minds_case else line.lower()
                assert any(hint in searched for hint in rule.hints), (rule.name, line)


def test_the_documentation_lists_the_rules() -> None:
    rows = re.findall(r"^\| `([a-z-]+)` \| (.+?) \| (.+?) \|$", DOCS.read_text(), re.MULTILINE)
    assert rows == [(rule.name, rule.why, rule.kept) for rule in (*RULES, *BLOCKS)]
