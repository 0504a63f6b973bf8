"""Errors: too many commands failed with a tracked errno in the window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from agent.anomaly_types.anomaly_type import AnomalyType
from agent.configuration.rule_lists import (
    MODES,
    acceptable_count,
    refuse_both,
    refuse_nothing,
    uses_list,
)
from agent.configuration.schema import AnomalyConfig
from agent.configuration.settings_reader import Section
from agent.configuration.smb_commands import (
    ALL_ERROR_CODES,
    ALL_SMB_CMDS,
    command_name,
    errno_name,
)
from agent.detection.anomaly import Trigger
from agent.detection.anomaly_handler import AnomalyHandler, Finding
from agent.detection.description import actor, most_frequent, of_all, seconds
from agent.detection.event_batch import EventBatch
from agent.detection.scene import Scene
from agent.detection.session_counts import SessionCounts
from bpf import abi

EVERY_COMMAND = frozenset(ALL_SMB_CMDS.values())


@dataclass(frozen=True, kw_only=True)
class ErrorRule(AnomalyConfig):
    """``track`` holds positive errno numbers, ``commands`` the SMB2 commands that count.

    ``minimum_share_percent``: so many of those commands in the window have to fail.
    """

    type: ClassVar[str] = "error"
    acceptable_count: int
    track: frozenset[int]
    commands: frozenset[int] = EVERY_COMMAND
    minimum_share_percent: float = 0.0

    def ask_kernel(self, settings: NDArray[np.void]) -> None:
        """Whatever command: the kernel program knows the errno only."""
        settings["error_tracked"][0][rows(self.track)] = 1

    def detector(self, window_ns: int) -> ErrorAnomalyHandler:
        return ErrorAnomalyHandler(self, window_ns)


class ErrorAnomalyHandler(AnomalyHandler[ErrorRule]):
    """Counts failures by session, in a sliding window."""

    def __init__(self, rule: ErrorRule, window_ns: int) -> None:
        super().__init__(rule, window_ns)
        self._counts = SessionCounts(rule.acceptable_count, window_ns)
        self._tracked = np.zeros(abi.ERRNOS, np.bool_)
        self._tracked[rows(rule.track)] = True
        self._tracked[0] = False
        self._watched = np.zeros(abi.COMMANDS + 1, np.bool_)
        self._watched[list(rule.commands)] = True
        # Numbers outside the table may be anything: they count where every command does.
        self._watched[abi.COMMANDS] = rule.commands == EVERY_COMMAND

    def detect(self, batch: EventBatch) -> Sequence[Finding]:
        if not batch.tools & abi.TOOL_SMBIOSNOOP:
            return ()
        failed = self._failed(batch)
        if not len(failed):
            return ()
        times = batch.times_ns(failed)
        found = self._counts.add(times, batch.sessions(failed))
        return [
            Finding(int(times[index]), session)
            for session, index in found.items()
            if index is not None
        ]

    def stands(self, finding: Finding, scene: Scene) -> bool:
        if not self.rule.minimum_share_percent:
            return True
        window = scene.window(finding.time_ns, self.window_ns, finding.session_id)
        ended = scene.commands_in(finding.time_ns, self.window_ns)
        total = sum(int(ended[command]) for command in self.rule.commands)
        return 100 * len(self._failed(window)) >= self.rule.minimum_share_percent * total

    def describe(self, finding: Finding, scene: Scene) -> Trigger:
        window = scene.window(finding.time_ns, self.window_ns, finding.session_id)
        failures = window.events[self._failed(window)]
        shown = most_frequent(failures)
        last = shown[-1]
        command, place = (
            int(last["smbcommand"]),
            scene.place(finding.session_id, int(last["tree_id"])),
        )
        total = int(scene.commands_in(finding.time_ns, self.window_ns)[min(command, 31)])
        others = len(failures) - len(shown)
        on = f" on {place}" if str(place) else ""
        return Trigger(
            time_ns=finding.time_ns,
            reason=(
                f"{command_name(command)}{on}: {of_all(len(shown), total, scene.state)} failed "
                f"with {errno_name(int(last['retval']))} in {seconds(self.window_ns)}, "
                f"by {actor(last)}" + (f"; and {others} other failures" if others else "")
            ),
            violations=len(failures),
            worst_ns=int(failures["metric_latency_ns"].max()),
            command=command,
            session_id=finding.session_id,
            place=place,
        )

    def _failed(self, batch: EventBatch) -> NDArray[np.intp]:
        """Places of the failures in the batch; few of them fail as a rule."""
        places = np.flatnonzero(batch.retval != 0)
        codes = np.maximum(-batch.retval[places], 0)
        tracked = np.take(self._tracked, codes, mode="clip")
        tracked &= np.take(self._watched, batch.command[places], mode="clip")
        failed: NDArray[np.intp] = places[tracked]
        return failed


def rows(codes: frozenset[int]) -> list[int]:
    """Places of errno numbers in the kernel program's table, whose last row takes the larger."""
    return [min(code, abi.ERRNOS - 1) for code in codes]


def read(section: Section, name: str, actions: tuple[str, ...]) -> ErrorRule:
    """An error rule of the configuration."""
    return ErrorRule(
        name=name,
        actions=actions,
        acceptable_count=acceptable_count(section),
        track=_track(section),
        commands=_commands(section),
        minimum_share_percent=section.number("minimum_share_percent", 0.0, minimum=0, maximum=100),
    )


def _track(section: Section) -> frozenset[int]:
    mode = section.choice("mode", MODES, "all")
    chosen: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()
    if uses_list(section, mode, "track_codes", "excludeonly"):
        chosen = section.names("track_codes", ALL_ERROR_CODES, "error code")
    if uses_list(section, mode, "exclude_codes", "trackonly"):
        excluded = section.names("exclude_codes", ALL_ERROR_CODES, "error code")
    refuse_both(section, "exclude_codes", chosen, excluded)
    if mode == "all" and chosen:
        section.warn(
            "track_codes",
            "changes nothing: mode all tracks every error code that is not excluded",
            "Use mode trackonly to track these alone.",
        )
    codes = chosen if mode == "trackonly" else ALL_ERROR_CODES
    tracked = [name for name in codes if name not in excluded]
    refuse_nothing(section, mode, tracked, "codes")
    return frozenset(ALL_ERROR_CODES[name] for name in tracked)


def _commands(section: Section) -> frozenset[int]:
    if "only_commands" not in section:
        return EVERY_COMMAND
    names = section.names("only_commands", ALL_SMB_CMDS, "SMB2 command")
    return frozenset(ALL_SMB_CMDS[name] for name in names) or EVERY_COMMAND


ERROR = AnomalyType("error", read, tool="smbiosnoop")
