"""Reads the rules under ``guardian.anomalies``: what each one watches, and from when on."""

from __future__ import annotations

from collections.abc import Collection
from re import compile as pattern

from agent.configuration.schema import AnomalyConfig, AnomalyType, GuardianConfig
from agent.configuration.settings_reader import Section
from agent.configuration.smb_commands import ALL_ERROR_CODES, ALL_SMB_CMDS

ACTIONS = ("journalctl", "stats", "debugdata", "dmesg", "mounts", "smbinfo", "syslogs")
MODES = ("all", "trackonly", "excludeonly")
TOOLS = {"smbslower": AnomalyType.LATENCY, "smbiosnoop": AnomalyType.ERROR}

MAX_COUNT = 1_000_000
MAX_THRESHOLD_MS = 3_600_000
REFERENCE_THRESHOLD_MS = 10.0

# Configurations written for the reference may list it; this agent captures no packets.
_FOREIGN_ACTION = "tcpdump"
_NAME = pattern(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_ENDLESS = "SMB2_CHANGE_NOTIFY"

Track = dict[int, float | None]


def read_actions(section: Section) -> tuple[str, ...]:
    """The names under ``actions`` that can be collected."""
    names = section.names("actions", (*ACTIONS, _FOREIGN_ACTION), "action")
    if _FOREIGN_ACTION in names:
        section.warn(
            "actions",
            f"{_FOREIGN_ACTION} is not collected by this agent",
            "Remove it from the list.",
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
    kind = AnomalyType(section.choice("type", [kind.value for kind in AnomalyType]))
    tool = _tool(section, kind)
    if kind is AnomalyType.LATENCY:
        track, default = _latency_track(section)
    else:
        track, default = _error_track(section), None
    return AnomalyConfig(
        name=name,
        type=kind,
        tool=tool,
        acceptable_count=section.integer("acceptable_count", minimum=1, maximum=MAX_COUNT),
        track=track,
        actions=_actions(section, available),
        default_threshold_ms=default,
    )


def _tool(section: Section, kind: AnomalyType) -> str:
    tool = section.choice("tool", TOOLS)
    if TOOLS[tool] is not kind and section.clean:
        fitting = next(name for name, served in TOOLS.items() if served is kind)
        section.warn(
            "tool",
            f"{tool} is the tool for {TOOLS[tool].value}; the {kind.value} rule works all the same",
            f"Use {fitting}.",
        )
    return tool


def _actions(section: Section, available: Collection[str]) -> tuple[str, ...]:
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


def _latency_track(section: Section) -> tuple[Track, float | None]:
    mode = section.choice("mode", MODES, "all")
    limits = _limits(section) if _uses(section, mode, "track_commands", "excludeonly") else {}
    excluded: tuple[str, ...] = ()
    if _uses(section, mode, "exclude_commands", "trackonly"):
        excluded = section.names("exclude_commands", ALL_SMB_CMDS, "SMB2 command")
    _refuse_both(section, "exclude_commands", limits, excluded)
    commands = limits if mode == "trackonly" else ALL_SMB_CMDS
    tracked = [name for name in commands if name not in excluded]
    _refuse_nothing(section, mode, tracked, "commands")
    if _ENDLESS in tracked:
        section.warn(
            "track_commands" if mode == "trackonly" else "exclude_commands",
            f"{_ENDLESS} is tracked by latency, but it waits for a change by design",
            "Take it out of track_commands."
            if mode == "trackonly"
            else "Add it to exclude_commands.",
        )
    default = _default_threshold(section, any(limits.get(name) is None for name in tracked))
    track: Track = {}
    for name in tracked:
        limit = limits.get(name)
        track[ALL_SMB_CMDS[name]] = default if limit is None else limit
    return track, default


def _limits(section: Section) -> dict[str, float | None]:
    """Commands of ``track_commands`` with their own limits in ms, or None for the default."""
    limits: dict[str, float | None] = {}
    for item in section.section_list("track_commands", "`- command: SMB2_READ`"):
        name = item.name("command", ALL_SMB_CMDS, "SMB2 command")
        limit = None
        if "threshold" in item:
            limit = item.number("threshold", minimum=0, maximum=MAX_THRESHOLD_MS)
        if name in limits and limits[name] == limit:
            item.warn("command", f"{name} stands twice", "Remove one of them.")
        elif name in limits:
            item.fault("command", f"{name} stands twice, with two thresholds", "Keep one of them.")
        if name:
            limits[name] = limit
    return limits


def _default_threshold(section: Section, needed: bool) -> float | None:
    if "default_threshold_ms" in section:
        return section.number("default_threshold_ms", minimum=0, maximum=MAX_THRESHOLD_MS)
    if not needed:
        return None
    section.warn(
        "default_threshold_ms",
        f"is missing; {REFERENCE_THRESHOLD_MS:g} ms will be used, which is little",
        "Set it, or give each tracked command its threshold.",
    )
    return REFERENCE_THRESHOLD_MS


def _error_track(section: Section) -> Track:
    mode = section.choice("mode", MODES, "all")
    chosen: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()
    if _uses(section, mode, "track_codes", "excludeonly"):
        chosen = section.names("track_codes", ALL_ERROR_CODES, "error code")
    if _uses(section, mode, "exclude_codes", "trackonly"):
        excluded = section.names("exclude_codes", ALL_ERROR_CODES, "error code")
    _refuse_both(section, "exclude_codes", chosen, excluded)
    if mode == "all" and chosen:
        section.warn(
            "track_codes",
            "changes nothing: mode all tracks every error code that is not excluded",
            "Use mode trackonly to track these alone.",
        )
    codes = chosen if mode == "trackonly" else ALL_ERROR_CODES
    tracked = [name for name in codes if name not in excluded]
    _refuse_nothing(section, mode, tracked, "codes")
    return {ALL_ERROR_CODES[name]: None for name in tracked}


def _uses(section: Section, mode: str, name: str, ignoring: str) -> bool:
    """Whether ``mode`` looks at the list ``name``; warns about a list that it ignores."""
    given = name in section
    if mode == ignoring and given:
        section.warn(
            name, f"is ignored in mode {mode}", "Remove it, or use mode all to use both lists."
        )
    return mode != ignoring


def _refuse_both(
    section: Section, key: str, tracked: Collection[str], excluded: Collection[str]
) -> None:
    both = [name for name in excluded if name in tracked]
    if both:
        section.fault(
            key, f"{', '.join(both)} both tracked and excluded", "Remove it from one of the lists."
        )


def _refuse_nothing(section: Section, mode: str, tracked: list[str], what: str) -> None:
    if tracked or not section.clean:
        return
    key = f"track_{what}" if mode == "trackonly" else f"exclude_{what}"
    section.fault(key, "leaves nothing to track", f"Name at least one of the {what} to watch.")
