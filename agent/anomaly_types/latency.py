"""Latency: too many commands over their limit in the window, or one that took very long."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from agent.anomaly_types.anomaly_type import AnomalyType
from agent.configuration.rule_lists import (
    MAX_THRESHOLD_MS,
    MODES,
    acceptable_count,
    refuse_both,
    refuse_nothing,
    uses_list,
)
from agent.configuration.schema import AnomalyConfig
from agent.configuration.settings_reader import Section
from agent.configuration.smb_commands import ALL_SMB_CMDS, command_name
from agent.detection.anomaly import Trigger
from agent.detection.anomaly_handler import AnomalyHandler, Finding
from agent.detection.description import actor, duration, most_frequent, of_all, seconds
from agent.detection.event_batch import EventBatch
from agent.detection.scene import Scene
from agent.detection.session_counts import SessionCounts
from bpf import abi

REFERENCE_THRESHOLD_MS = 10.0
SINGLE_EVENT_MS = 1_000.0
NEVER = np.iinfo(np.uint64).max
_ENDLESS = "SMB2_CHANGE_NOTIFY"


@dataclass(frozen=True, kw_only=True)
class LatencyRule(AnomalyConfig):
    """``track`` maps SMB2 command numbers to their limits in milliseconds; one event of
    ``single_event_threshold_ms`` or more is enough by itself."""

    type: ClassVar[str] = "latency"
    acceptable_count: int
    track: Mapping[int, float]
    default_threshold_ms: float | None = None
    single_event_threshold_ms: float = SINGLE_EVENT_MS

    def limits_ns(self) -> dict[int, int]:
        """``track`` in nanoseconds."""
        return {command: int(limit_ms * 1_000_000) for command, limit_ms in self.track.items()}

    def single_event_ns(self) -> int:
        """``single_event_threshold_ms`` in nanoseconds."""
        return int(self.single_event_threshold_ms * 1_000_000)

    def ask_kernel(self, settings: NDArray[np.void]) -> None:
        """The lowest limit of any rule counts; 0 ms becomes 1 ns, since 0 means "never" there."""
        slow_ns = settings["slow_ns"][0]
        for command, limit_ns in self.limits_ns().items():
            lowest = min(limit_ns, self.single_event_ns(), int(slow_ns[command]) or limit_ns)
            slow_ns[command] = max(1, lowest)

    def detector(self, window_ns: int) -> LatencyAnomalyHandler:
        return LatencyAnomalyHandler(self, window_ns)


class LatencyAnomalyHandler(AnomalyHandler[LatencyRule]):
    """Counts slow commands by session, in a sliding window."""

    def __init__(self, rule: LatencyRule, window_ns: int) -> None:
        super().__init__(rule, window_ns)
        self._counts = SessionCounts(rule.acceptable_count, window_ns)
        # The last row stands for numbers outside the table: never slow.
        self._limits = np.full(abi.COMMANDS + 1, NEVER, np.uint64)
        for command, limit_ns in rule.limits_ns().items():
            self._limits[command] = limit_ns
        self._single_ns = rule.single_event_ns()

    def detect(self, batch: EventBatch) -> Sequence[Finding]:
        if not batch.tools & abi.TOOL_SMBSLOWER:
            return ()
        slow = self._slow(batch)
        found: dict[int, int] = {}
        if slow.any():
            times, sessions = batch.times_ns(slow), batch.sessions(slow)
            for session, index in self._counts.add(times, sessions).items():
                if index is not None:
                    found[session] = int(np.flatnonzero(slow)[index])
        if batch.latency_ns.max() >= self._single_ns:
            self._add_singles(batch, found)
        ends = batch.events["cmd_end_time_ns"]
        return [Finding(int(ends[place]), session) for session, place in found.items()]

    def _add_singles(self, batch: EventBatch, found: dict[int, int]) -> None:
        """To the places of the first anomalies, by session."""
        very_slow = batch.latency_ns >= self._single_ns
        very_slow &= np.take(self._limits, batch.command, mode="clip") != NEVER
        places = np.flatnonzero(very_slow)
        for place, session in zip(places, batch.sessions(places), strict=True):
            found[int(session)] = min(int(place), found.get(int(session), int(place)))

    def describe(self, finding: Finding, scene: Scene) -> Trigger:
        window = scene.window(finding.time_ns, self.window_ns, finding.session_id)
        slow = window.events[self._slow(window) | (window.latency_ns >= self._single_ns)]
        worst = slow[np.argmax(slow["metric_latency_ns"])]
        alone = len(slow) < self.rule.acceptable_count
        shown = slow[slow["smbcommand"] == worst["smbcommand"]] if alone else most_frequent(slow)
        first = shown[np.argmax(shown["metric_latency_ns"])]
        place = scene.place(finding.session_id, int(first["tree_id"]))
        on = f" on {place}" if str(place) else ""
        name = f"{command_name(int(first['smbcommand']))}{on}"
        return Trigger(
            time_ns=finding.time_ns,
            reason=self._single(name, first) if alone else self._many(name, shown, slow, scene),
            violations=len(slow),
            worst_ns=int(worst["metric_latency_ns"]),
            command=int(first["smbcommand"]),
            session_id=finding.session_id,
            place=place,
        )

    def _single(self, name: str, event: np.void) -> str:
        return (
            f"{name} took {duration(int(event['metric_latency_ns']))} by {actor(event)}; "
            f"{duration(self._single_ns)} or more is always an anomaly"
        )

    def _many(
        self, name: str, shown: NDArray[np.void], slow: NDArray[np.void], scene: Scene
    ) -> str:
        command = int(shown[0]["smbcommand"])
        worst = shown[np.argmax(shown["metric_latency_ns"])]
        total = scene.commands_in(int(slow["cmd_end_time_ns"].max()), self.window_ns)[command]
        others = len(slow) - len(shown)
        return (
            f"{name}: {of_all(len(shown), int(total), scene.state)} over "
            f"{duration(int(self._limits[command]))} in {seconds(self.window_ns)}, "
            f"worst {duration(int(worst['metric_latency_ns']))}, by {actor(worst)}"
            + (f"; and {others} of other kinds" if others else "")
        )

    def _slow(self, batch: EventBatch) -> NDArray[np.bool_]:
        slow: NDArray[np.bool_] = batch.latency_ns >= np.take(
            self._limits, batch.command, mode="clip"
        )
        return slow


def read(section: Section, name: str, actions: tuple[str, ...]) -> LatencyRule:
    """A latency rule of the configuration."""
    track, default = _track(section)
    return LatencyRule(
        name=name,
        actions=actions,
        acceptable_count=acceptable_count(section),
        track=track,
        default_threshold_ms=default,
        single_event_threshold_ms=section.number(
            "single_event_threshold_ms", SINGLE_EVENT_MS, minimum=1, maximum=MAX_THRESHOLD_MS
        ),
    )


def _track(section: Section) -> tuple[dict[int, float], float | None]:
    mode = section.choice("mode", MODES, "all")
    limits = _limits(section) if uses_list(section, mode, "track_commands", "excludeonly") else {}
    excluded: tuple[str, ...] = ()
    if uses_list(section, mode, "exclude_commands", "trackonly"):
        excluded = section.names("exclude_commands", ALL_SMB_CMDS, "SMB2 command")
    refuse_both(section, "exclude_commands", limits, excluded)
    commands = limits if mode == "trackonly" else ALL_SMB_CMDS
    tracked = [name for name in commands if name not in excluded]
    refuse_nothing(section, mode, tracked, "commands")
    if _ENDLESS in tracked:
        _warn_of_endless(section, mode)
    default = _default_threshold(section, any(limits.get(name) is None for name in tracked))
    track: dict[int, float] = {}
    for name in tracked:
        limit = limits.get(name)
        track[ALL_SMB_CMDS[name]] = (default or 0.0) if limit is None else limit
    return track, default


def _warn_of_endless(section: Section, mode: str) -> None:
    tracked = mode == "trackonly"
    section.warn(
        "track_commands" if tracked else "exclude_commands",
        f"{_ENDLESS} is tracked by latency, but it waits for a change by design",
        "Take it out of track_commands." if tracked else "Add it to exclude_commands.",
    )


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


LATENCY = AnomalyType("latency", read, tool="smbslower")
