"""All rules of redaction, as data. docs/redaction.md lists them for people."""

from __future__ import annotations

from agent.redaction.key_rules import KEY_BLOCKS, KEY_RULES
from agent.redaction.password_rules import PASSWORD_RULES
from agent.redaction.rule import Block, Rule
from agent.redaction.token_rules import TOKEN_RULES

# Where two rules find the same secret, the first one gives its name.
RULES: tuple[Rule, ...] = KEY_RULES + TOKEN_RULES + PASSWORD_RULES
BLOCKS: tuple[Block, ...] = KEY_BLOCKS
