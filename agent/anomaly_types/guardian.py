"""Reads the rules under ``guardian.anomalies``; what a type adds, the type reads itself."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from re import compile as pattern

from agent.anomaly_types.anomaly_type import AnomalyType
from agent.anomaly_types.registry import ANOMALY_TYPES
from agent.collection.quick_actions import QUICK_ACTIONS
from agent.configuration.schema import AnomalyConfig, GuardianConfig
from agent.configuration.settings_reader import Section

ACTIONS = tuple(action.name for action in QUICK_ACTIONS)
DEFAULT_ACTIONS = tuple(action.name for action in QUICK_ACTIONS if action.by_default)
TOOLS = {kind.tool: kind for kind in ANOMALY_TYPES.values() if kind.tool}

# Configurations written for the reference may list it, where it did nothing: packets are captured
# for those who ask by this agent's name for it.
_FOREIGN_ACTION = "tcpdump"
_NAME = pattern(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def read_actions(section: Section) -> tuple[str, ...]:
    """The names under ``actions`` that can be collected."""
    names = section.names("actions", (*ACTIONS, _FOREIGN_ACTION), "action")
    if _FOREIGN_ACTION in names:
        section.warn(
            "actions",
            f"{_FOREIGN_ACTION} is not collected under this name",
            "Remove it, or write netcapture, which needs rights of its own (docs/actions.md).",
        )
    return tuple(name for name in names if name != _FOREIGN_ACTION)


def read_guardian(section: Section, available: Collection[str]) -> GuardianConfig:
    """The rules by name; ``available`` are the actions of the watcher."""
    rules = section.sections("anomalies")
    if not rules and section.clean:
        section.fault("anomalies", "has no rule: nothing would be watched", "Add one anomaly.")
    return GuardianConfig({name: _rule(name, rules[name], available) for name in rules})


def _rule(name: str, section: Section, available: Collection[str]) -> AnomalyConfig:
    if not _NAME.fullmatch(name):
        section.fault_here(
            "cannot be the name of an anomaly: it becomes part of file names",
            "Use up to 64 letters, digits, `-`, `_` and `.`, a letter or digit first.",
        )
    kind = ANOMALY_TYPES[section.choice("type", ANOMALY_TYPES)]
    _check_tool(section, kind)
    rule = kind.read(section, name, _actions(section, available))
    if "window_sec" not in section:
        return rule
    return replace(rule, window_sec=section.number("window_sec", minimum=0.1, maximum=3600))


def _check_tool(section: Section, kind: AnomalyType) -> None:
    """The tool changes nothing: the type says all. Files written for the reference have it."""
    if not kind.tool and "tool" not in section:
        return
    tool = section.choice("tool", TOOLS)
    if TOOLS[tool] is not kind and section.clean:
        section.warn(
            "tool",
            f"{tool} is the tool for {TOOLS[tool].name}; the {kind.name} rule works all the same",
            f"Use {kind.tool}." if kind.tool else "Remove it.",
        )


def _actions(section: Section, available: Collection[str]) -> tuple[str, ...]:
    if "actions" not in section:
        return tuple(available)
    actions = read_actions(section)
    unlisted = [name for name in actions if name not in available]
    if unlisted:
        section.warn(
            "actions",
            f"{', '.join(unlisted)} not in watcher.actions, but collected all the same",
            "Add what is missing to watcher.actions.",
        )
    if not actions and section.clean:
        section.warn(
            "actions",
            "no action: a bundle will hold the events and nothing else",
            f"List some of {', '.join(ACTIONS)}.",
        )
    return actions
