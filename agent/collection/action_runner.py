"""Runs quick actions: side by side, each bounded, none able to stop another."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from agent.collection.quick_action import (
    ActionResult,
    Command,
    CommandReport,
    QuickAction,
    Span,
    Wave,
)
from agent.collection.scene import Scene
from agent.collection.subprocesses import CommandResult, Halt, Limits, run_command
from agent.configuration.schema import ActionLimits, CollectionConfig
from agent.storage.durable_file import create_exclusive, open_plain
from agent.storage.free_space import MEGABYTE

log = logging.getLogger("aod.collector")

# From good to bad; an action of several commands has the status of its worst.
STATUSES = ("ok", "not_there", "cut", "failed", "timed_out", "stopped")
# How long the actions for what lasts wait for those for what does not.
HEAD_START_SEC = 1.0


class ActionRunner:
    """Runs the actions of one collection into ``directory``, in the thread of the event loop.

    Once ``halt`` is done, none is begun and those that run are ended. ``worked_sec`` is how long
    it took until all that end by themselves had.
    """

    def __init__(self, scene: Scene, directory: Path, config: CollectionConfig, halt: Halt) -> None:
        self._scene = scene
        self._directory = directory
        self._config = config
        self._halt = halt
        self._over: Halt = asyncio.get_running_loop().create_future()
        self.worked_sec = 0.0

    async def run(self, actions: Sequence[QuickAction], length_sec: float) -> list[ActionResult]:
        """Run ``actions``, the volatile ones first; results in their order. The collection lasts
        ``length_sec``, or as long as the slowest action that ends by itself."""
        started = time.monotonic()
        tasks: dict[QuickAction, asyncio.Task[ActionResult]] = {}
        try:
            for wave in Wave:
                for action in actions:
                    if action.wave is wave:
                        tasks[action] = asyncio.create_task(self._run_action(action))
                await _settle(_ending(tasks), HEAD_START_SEC if wave is Wave.VOLATILE else None)
            self.worked_sec = time.monotonic() - started
            await self._let_pass(started + length_sec)
        finally:
            self._over.set_result(None)
            results = await asyncio.gather(*tasks.values())
        by_action = dict(zip(tasks, results, strict=True))
        return [by_action[action] for action in actions]

    async def _let_pass(self, until: float) -> None:
        """The bundle shows the time after its trigger too; at a halt, what there is of it."""
        rest_sec = until - time.monotonic()
        if rest_sec > 0:
            await asyncio.wait({self._halt}, timeout=rest_sec)

    async def _run_action(self, action: QuickAction) -> ActionResult:
        if self._halt.done():
            return ActionResult(action.name, None, "not_run")
        started = time.monotonic()
        output = self._directory / action.output
        try:
            commands = action.commands(self._scene)
            parts = [_part(output, number, len(commands)) for number in range(len(commands))]
            results = await asyncio.gather(
                *(
                    self._attempt(action, command, part)
                    for command, part in zip(commands, parts, strict=True)
                )
            )
            if len(parts) > 1:
                _join(output, results, parts)
            reports = _reports(action, commands, results)
            return _summary(action, output, results, reports, time.monotonic() - started)
        except Exception as error:  # of whatever kind: it stops no other
            log.exception("the action %s failed", action.name)
            duration_sec = time.monotonic() - started
            return ActionResult(action.name, None, "failed", None, str(error), duration_sec)

    async def _attempt(self, action: QuickAction, command: Command, output: Path) -> CommandResult:
        """`run_command`, with a program that cannot be started as a failed one."""
        limits = limits_of(action, self._config)
        over = self._over if action.span is Span.COLLECTION else None
        try:
            return await run_command(command.argv, output, limits, self._halt, over)
        except (OSError, subprocess.SubprocessError) as error:
            return CommandResult(command.argv, found=True, stderr_tail=str(error))


def _ending(
    tasks: dict[QuickAction, asyncio.Task[ActionResult]],
) -> set[asyncio.Task[ActionResult]]:
    return {task for action, task in tasks.items() if action.span is Span.MOMENT}


async def _settle(tasks: set[asyncio.Task[ActionResult]], seconds: float | None) -> None:
    if tasks:
        await asyncio.wait(tasks, timeout=seconds)


def limits_of(action: QuickAction, config: CollectionConfig) -> Limits:
    """The operator's for this action, else the action's own, else those for all."""
    own = config.limits.get(action.name, ActionLimits())
    timeouts, sizes = (own.timeout_sec, action.timeout_sec), (own.max_output_mb, action.max_mb)
    # What lasts as long as the collection is ended with it.
    general_sec = config.action_timeout_sec if action.span is Span.MOMENT else float("inf")
    timeout_sec = next((value for value in timeouts if value is not None), general_sec)
    size_mb = next((value for value in sizes if value is not None), config.action_max_output_mb)
    return Limits(timeout_sec, int(size_mb * MEGABYTE), keep_tail=action.text)


def _part(output: Path, number: int, count: int) -> Path:
    return output if count == 1 else output.with_name(f"{output.name}.{number}")


def _join(output: Path, results: Sequence[CommandResult], parts: Sequence[Path]) -> None:
    """Make one file of the outputs of several commands, each below a line that names it."""
    with os.fdopen(create_exclusive(output), "wb") as file:
        for result, part in zip(results, parts, strict=True):
            if not part.exists():
                continue
            file.write(f"==> {' '.join(result.argv)} <==\n".encode("utf-8", "surrogateescape"))
            with os.fdopen(open_plain(part), "rb") as source:
                shutil.copyfileobj(source, file)
                if source.tell() and os.pread(source.fileno(), 1, source.tell() - 1) != b"\n":
                    file.write(b"\n")
            part.unlink()


def _reports(
    action: QuickAction, commands: Sequence[Command], results: Sequence[CommandResult]
) -> tuple[CommandReport, ...]:
    return tuple(
        CommandReport(
            command.argv,
            _status(action, command, result),
            result.exit,
            result.signal,
            result.stderr_tail,
            round(result.duration_sec, 3),
        )
        for command, result in zip(commands, results, strict=True)
    )


def _summary(
    action: QuickAction,
    output: Path,
    results: Sequence[CommandResult],
    reports: tuple[CommandReport, ...],
    duration_sec: float,
) -> ActionResult:
    there = [report for report in reports if report.status != "not_there"]
    if not there:
        output.unlink(missing_ok=True)
        return ActionResult(
            action.name, None, "not_there", duration_sec=duration_sec, commands=reports
        )
    worst = max(there, key=lambda report: STATUSES.index(report.status))
    return ActionResult(
        action.name,
        output.name,
        worst.status,
        worst.exit,
        worst.stderr_tail,
        duration_sec,
        output.stat().st_size,
        any(result.truncated for result in results),
        reports,
    )


def _status(action: QuickAction, command: Command, result: CommandResult) -> str:
    absent = result.exit is not None and result.exit == command.absent_exit
    if not result.found or (absent and not result.bytes):
        return "not_there"
    if result.stopped:
        return "stopped"
    if result.timed_out:
        return "timed_out"
    ended = result.exit == 0 or absent or (result.told and result.signal == signal.SIGTERM)
    if result.truncated and (ended or not action.text):  # whose pipe was closed at the limit
        return "cut"
    return "ok" if ended else "failed"
