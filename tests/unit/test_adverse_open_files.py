"""Processes with very many open files, and with names that mean harm to whoever prints them."""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import asdict
from pathlib import Path

import pytest

from agent.collection.action_commands import MAX_QUERIES, file_queries
from agent.collection.action_runner import ActionRunner
from agent.collection.quick_action import ActionResult
from agent.collection.quick_actions import QUICK_ACTIONS
from agent.collection.scene import MAX_DESCRIPTORS, MAX_PROCESSES, Roots, Scene
from agent.configuration.schema import CollectionConfig

PIDS = tuple(range(101, 101 + MAX_PROCESSES))
MOUNTINFO = "90 22 0:41 / /mnt/share rw - cifs //server/share rw\n"
HOSTILE = (
    b"/mnt/share/two\nlines\n==> fake <==",
    b"/mnt/share/\x1b[2Jscreen",
    b"/mnt/share/gone (deleted)",
    b"/mnt/share/\xff\xfe",
    b"/mnt/share/$(touch /tmp/x); -rf '\"",
    b"/mnt/share/" + b"n" * 250,
)
ELSEWHERE = (b"/mnt/shared/x", b"/etc/shadow", b"socket:[1]", b"--help", b"/mnt/share")
(SMBINFO,) = (action for action in QUICK_ACTIONS if action.name == "smbinfo")


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """A /proc with a mount and the processes, without open files."""
    proc = tmp_path / "proc"
    for pid in PIDS:
        (proc / str(pid) / "fd").mkdir(parents=True)
    (proc / "self").mkdir()
    (proc / "self" / "mountinfo").write_text(MOUNTINFO)
    return proc


@pytest.fixture
def scene(proc: Path) -> Scene:
    return Scene(0, Roots(proc, *(proc.with_name(name) for name in ("s", "e", "l", "r"))), PIDS)


def open_file(proc: Path, pid: int, number: int, target: bytes) -> None:
    (proc / str(pid) / "fd" / str(number)).symlink_to(os.fsdecode(target))


def test_of_ten_thousand_open_files_a_bounded_number_is_looked_at(scene: Scene, proc: Path) -> None:
    for number in range(10_000):
        open_file(proc, PIDS[0], number, b"/mnt/share/%d" % number)
    open_file(proc, PIDS[1], 0, b"/mnt/share/of another")
    names = scene.open_files()
    assert len(names) == MAX_DESCRIPTORS + 1
    assert names[-1] == f"{proc}/{PIDS[1]}/root/mnt/share/of another"
    assert len(file_queries(scene)) == MAX_QUERIES


def test_every_name_is_one_argument_and_no_option(scene: Scene, proc: Path) -> None:
    for number, target in enumerate((*HOSTILE, *ELSEWHERE)):
        open_file(proc, PIDS[0], number, target)
    root = os.fsencode(proc / str(PIDS[0]) / "root")
    assert {os.fsencode(name) for name in scene.open_files()} == {root + name for name in HOSTILE}
    for command in file_queries(scene):
        program, query, name = command.argv
        assert (program, query) == ("smbinfo", "filebasicinfo")
        assert os.fsencode(name).startswith(root + b"/mnt/share/")


@pytest.mark.parametrize("target", HOSTILE)
def test_it_reaches_the_program_and_the_bundle_as_it_is(
    scene: Scene, proc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: bytes
) -> None:
    open_file(proc, PIDS[0], 0, target)
    program = tmp_path / "bin" / "smbinfo"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\nprintf "%s|" "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    staging = tmp_path / "staging"
    staging.mkdir()
    (result,) = run_smbinfo(scene, staging)
    assert result.status == "ok"
    name = os.fsencode(proc / str(PIDS[0]) / "root") + target
    assert (staging / "smbinfo.log").read_bytes() == b"filebasicinfo|" + name + b"|"
    assert [path.name for path in staging.iterdir()] == ["smbinfo.log"]
    (told,) = json.loads(json.dumps(asdict(result)))["commands"]
    assert os.fsencode(told["argv"][-1]) == name


def run_smbinfo(scene: Scene, staging: Path) -> list[ActionResult]:
    async def collect() -> list[ActionResult]:
        halt = asyncio.get_running_loop().create_future()
        return await ActionRunner(scene, staging, CollectionConfig(), halt).run([SMBINFO], 0.0)

    return asyncio.run(collect())
