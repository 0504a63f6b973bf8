"""Runs quick actions: all at once, each bounded, none able to stop another."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from agent.collection.quick_actions import ActionResult, Argv, QuickAction, Scene
from agent.collection.subprocesses import CommandResult, Halt, Limits, run_command
from agent.storage.durable_file import create_exclusive, open_plain

# From good to bad; an action of several commands has the status of its worst.
STATUSES = ("ok", "not_there", "cut", "failed", "timed_out", "stopped")


async def run_actions(
    actions: Iterable[QuickAction],
    scene: Scene,
    directory: Path,
    limits: Limits,
    halt: Halt | None = None,
) -> list[ActionResult]:
    """Run ``actions`` concurrently, started in the order given; their outputs in ``directory``.

    Once ``halt`` is done, none is begun and those that run are ended.
    """
    return await asyncio.gather(
        *(_run_action(action, scene, directory, limits, halt) for action in actions)
    )


async def _run_action(
    action: QuickAction, scene: Scene, directory: Path, limits: Limits, halt: Halt | None
) -> ActionResult:
    if halt is not None and halt.done():
        return ActionResult(action.name, None, "not_run")
    started = time.monotonic()
    output = directory / action.output
    try:
        commands = action.commands(scene)
        parts = [_part(output, number, len(commands)) for number in range(len(commands))]
        results = await asyncio.gather(
            *(
                _attempt(argv, part, limits, halt)
                for argv, part in zip(commands, parts, strict=True)
            )
        )
        if len(parts) > 1:
            await asyncio.to_thread(_join, output, results, parts)
        return _summary(action, output, results, time.monotonic() - started)
    except OSError as error:
        duration_sec = time.monotonic() - started
        return ActionResult(action.name, None, "failed", None, str(error), duration_sec)


async def _attempt(argv: Argv, output: Path, limits: Limits, halt: Halt | None) -> CommandResult:
    """`run_command`, with a program that cannot be started as a failed one."""
    try:
        return await run_command(argv, output, limits, halt)
    except (OSError, subprocess.SubprocessError) as error:
        return CommandResult(argv, found=True, stderr_tail=str(error))


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
            part.unlink()


def _summary(
    action: QuickAction, output: Path, results: Sequence[CommandResult], duration_sec: float
) -> ActionResult:
    worst = max(results, key=_badness, default=None)
    if worst is None or not any(result.found for result in results):
        return ActionResult(action.name, None, "not_there", duration_sec=duration_sec)
    return ActionResult(
        action.name,
        output.name,
        _status(worst),
        worst.exit,
        worst.stderr_tail,
        duration_sec,
        output.stat().st_size,
    )


def _badness(result: CommandResult) -> int:
    return STATUSES.index(_status(result))


def _status(result: CommandResult) -> str:
    if not result.found:
        return "not_there"
    if result.stopped:
        return "stopped"
    if result.timed_out:
        return "timed_out"
    if result.truncated:
        return "cut"
    return "ok" if result.exit == 0 else "failed"
