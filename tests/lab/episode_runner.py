"""Runs one episode in the laboratory and writes it down."""

from __future__ import annotations

import errno
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from subprocess import TimeoutExpired
from typing import Any

from tests.lab.catalogue import Case, is_held_out
from tests.lab.episode_store import (
    BUNDLES,
    EVENTS,
    FAULT,
    LABELS,
    NORMAL,
    TELEMETRY,
    TRACE,
    Episode,
    Phase,
    begin_episode,
    finish_episode,
    write_rows,
)
from tests.lab.laboratory import Laboratory
from tests.vm.guest import GuestCommandError, MachineError

Row = dict[str, Any]


class LaboratoryLostError(Exception):
    """After an episode that went wrong the guest could not be brought back to normal."""


class EpisodeRunner:
    """One episode after the other, each into a directory of its own below ``root``."""

    def __init__(self, laboratory: Laboratory, root: Path) -> None:
        self._laboratory = laboratory
        self._root = root
        self._versions = laboratory.versions()

    def run(self, case: Case) -> Episode:
        """Run ``case`` from a calm agent to a calm agent, about 45 s.

        Whatever goes wrong is raised when the guest is back to normal, else `LaboratoryLostError`.
        """
        directory = begin_episode(self._root, self._meta(case))
        script = _Script(self._laboratory)
        try:
            with self._recorded(directory):
                phases = script.play(case)
        except BaseException:
            self._restore(case)
            raise
        self._laboratory.wait_until_calm()
        write_rows(directory / EVENTS, script.events)
        write_rows(directory / LABELS, map(asdict, phases))
        write_rows(directory / BUNDLES, self._laboratory.new_manifests())
        return finish_episode(directory)

    def _restore(self, case: Case) -> None:
        fault = case.fault()
        try:
            self._laboratory.restore(fault.end if fault else "true")
        except (GuestCommandError, MachineError, TimeoutExpired) as error:
            raise LaboratoryLostError(f"after {case.name}-{case.seed}: {error}") from error

    @contextmanager
    def _recorded(self, directory: Path) -> Iterator[None]:
        name = directory.name
        self._laboratory.start_recording(name)
        self._laboratory.start_telemetry()
        yield
        self._laboratory.stop_telemetry(directory / TELEMETRY)
        self._laboratory.stop_recording(name, directory / TRACE)

    def _meta(self, case: Case) -> Row:
        affected = case.episode_class.affected
        workload = case.episode_class.workload
        return {
            "class": case.name,
            "seed": case.seed,
            "held_out": is_held_out(case.seed),
            "kind": "innocent" if case.innocent else "fault",
            "parameters": dict(case.parameters),
            "workload": asdict(workload) if workload else None,
            "expected": list(case.episode_class.expected),
            "affected": {
                "slow_ms": affected.slow_ms,
                "errors": [errno.errorcode[code] for code in affected.errors],
            },
            "kernel": self._versions["kernel"],
            "versions": self._versions,
        }


class _Script:
    """What is done in the course of one episode; ``events`` says when."""

    def __init__(self, laboratory: Laboratory) -> None:
        self._laboratory = laboratory
        self.events: list[Row] = []

    def play(self, case: Case) -> list[Phase]:
        workload, fault = case.episode_class.workload, case.fault()
        if workload:
            self._laboratory.start_workload(workload, case.seed)
        begin = self._note("workload started", self._laboratory.wait_until_shares_work())
        time.sleep(case.episode_class.before_sec)
        if fault is None:
            phases = [Phase("normal", begin, self._end_workload(case), NORMAL)]
        else:
            before, after = self._laboratory.switch(fault.begin)
            fault_begin = self._note("fault begins", before, script=fault.begin)
            self._note("fault is there", after)
            time.sleep(case.fault_sec)
            before, after = self._laboratory.switch(fault.end)
            self._note("fault ends", before, script=fault.end)
            fault_end = self._note("fault is gone", after)
            works = self._note("shares work", self._laboratory.wait_until_shares_work())
            time.sleep(case.episode_class.after_sec)
            phases = [
                Phase("before", begin, fault_begin, NORMAL),
                Phase("fault", fault_begin, fault_end, FAULT),
                # Until the client has found its way back, commands suffer from what is over.
                Phase("recovery", fault_end, works, FAULT),
                Phase("after", works, self._end_workload(case), NORMAL),
            ]
        return phases

    def _end_workload(self, case: Case) -> int:
        moment = self._laboratory.switch("true")[1]
        counts = self._laboratory.stop_workload() if case.episode_class.workload else {}
        return self._note("workload ended", moment, counts=counts)

    def _note(self, event: str, moment: Row, **details: object) -> int:
        self.events.append({**moment, "event": event, **details})
        return int(moment["t_mono_ns"])
