"""Stall: a command is still unanswered after so many seconds, and the kernel waits for it too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from agent.anomaly_types.anomaly_type import AnomalyType
from agent.cifs.state import CifsState
from agent.configuration.rule_lists import acceptable_count, commands_without
from agent.configuration.schema import AnomalyConfig
from agent.configuration.settings_reader import Section
from agent.configuration.smb_commands import command_name
from agent.detection.anomaly import Trigger
from agent.detection.anomaly_handler import AnomalyHandler, Finding
from agent.detection.description import actor, duration
from agent.detection.scene import Scene
from agent.detection.sight import Sight
from bpf import abi

STALL_SEC = 10.0
# Long by design: a keep-alive without an end, a wait for a change, a wait for another client.
EXEMPT = ("SMB2_ECHO", "SMB2_CHANGE_NOTIFY", "SMB2_LOCK")


@dataclass(frozen=True, kw_only=True)
class StallRule(AnomalyConfig):
    """``commands``: SMB2 command numbers that must be answered within ``stall_sec``."""

    type: ClassVar[str] = "stall"
    commands: frozenset[int]
    stall_sec: float = STALL_SEC
    acceptable_count: int = 1

    def detector(self, window_ns: int) -> StallAnomalyHandler:
        return StallAnomalyHandler(self, window_ns)


@dataclass(frozen=True)
class Stalled:
    """``slots``: `bpf.abi.INFLIGHT` records, oldest first; ``fault``: why the kernel's own list
    could not be asked."""

    slots: NDArray[np.void]
    fault: str


class StallAnomalyHandler(AnomalyHandler[StallRule]):
    """Looks when the oldest command under way reaches its limit, and never while there is none.

    The table also holds leftovers: commands the kernel dropped without a word, such as members
    behind a failed one in a compound. What the kernel does not list as pending is one of them,
    and not asked for again.
    """

    looks = True

    def __init__(self, rule: StallRule, window_ns: int) -> None:
        super().__init__(rule, window_ns)
        self._limit_ns = int(rule.stall_sec * 1_000_000_000)
        self._watched = np.zeros(abi.COMMANDS + 1, np.bool_)
        self._watched[list(rule.commands)] = True
        self._leftovers = np.zeros(0, np.uint64)
        self.rest_ns = self._limit_ns // 2

    def look(self, sight: Sight) -> Sequence[Finding]:
        waiting = self._waiting(sight)
        overdue = waiting[waiting["start_ns"] + np.uint64(self._limit_ns) <= sight.time_ns]
        if not len(overdue):
            return ()
        state = sight.state
        if state.fault:
            confirmed = np.ones(len(overdue), np.bool_)
        else:
            confirmed = np.array([is_pending(slot, state) for slot in overdue])
            self._forget(sight.inflight, overdue[~confirmed])
        return self._findings(sight.time_ns, overdue[confirmed], state.fault)

    def next_look_ns(self, sight: Sight) -> int | None:
        waiting = self._waiting(sight)
        if not len(waiting):
            return None
        limits = waiting["start_ns"].astype(np.int64) + self._limit_ns
        # What hangs already is looked at again, so that its incident does not seem over.
        again_ns = sight.time_ns + self._limit_ns // 2
        return int(np.where(limits > sight.time_ns, limits, again_ns).min())

    def describe(self, finding: Finding, scene: Scene) -> Trigger:
        stalled = finding.detail
        assert isinstance(stalled, Stalled)  # noqa: S101 - made below
        oldest = stalled.slots[0]
        age_ns = max(0, finding.time_ns - int(oldest["start_ns"]))
        command = int(oldest["smbcommand"])
        place = scene.place(finding.session_id, int(oldest["tree_id"]))
        on = f" on {place}" if str(place) else ""
        others = len(stalled.slots) - 1
        return Trigger(
            time_ns=finding.time_ns,
            reason=(
                f"{command_name(command)}{on}: no answer for {duration(age_ns)}, asked by "
                f"{actor(oldest)}"
                + (f"; {others} more commands wait as well" if others else "")
                + (f"; not confirmed: {stalled.fault}" if stalled.fault else "")
            ),
            violations=len(stalled.slots),
            worst_ns=age_ns,
            command=command,
            session_id=finding.session_id,
            place=place,
        )

    def _waiting(self, sight: Sight) -> NDArray[np.void]:
        """Commands under way that this rule watches."""
        inflight = sight.inflight
        watched = np.take(self._watched, inflight["smbcommand"], mode="clip")
        watched &= ~np.isin(inflight["start_ns"], self._leftovers)
        chosen: NDArray[np.void] = inflight[watched]
        return chosen

    def _forget(self, inflight: NDArray[np.void], dropped: NDArray[np.void]) -> None:
        """A start in nanoseconds tells one command from another; gone ones need no memory."""
        known = np.concatenate([self._leftovers, dropped["start_ns"]])
        self._leftovers = known[np.isin(known, inflight["start_ns"])]

    def _findings(self, time_ns: int, stalled: NDArray[np.void], fault: str) -> list[Finding]:
        found = []
        for session in np.unique(stalled["session_id"]):
            slots = np.sort(stalled[stalled["session_id"] == session], order="start_ns")
            if len(slots) >= self.rule.acceptable_count:
                found.append(Finding(time_ns, int(session), detail=Stalled(slots, fault)))
        return found


def is_pending(slot: np.void, state: CifsState) -> bool:
    """Whether the kernel still waits for the answer to this command."""
    return state.is_pending(int(slot["smbcommand"]), int(slot["mid"]))


def read(section: Section, name: str, actions: tuple[str, ...]) -> StallRule:
    """A stall rule of the configuration."""
    return StallRule(
        name=name,
        actions=actions,
        commands=commands_without(section, EXEMPT),
        stall_sec=section.number("stall_sec", STALL_SEC, minimum=0.5, maximum=3600),
        acceptable_count=acceptable_count(section, 1),
    )


STALL = AnomalyType("stall", read)
