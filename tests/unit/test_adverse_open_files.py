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
        (proc / str(pid) / "fdinfo").mkdir()
        (proc / str(pid) / "mountinfo").write_text(MOUNTINFO)
    (proc / "self").mkdir()
    (proc / "self" / "mountinfo").write_text(MOUNTINFO)
    return proc


@pytest.fixture
def scene(proc: Path) -> Scene:
    return Scene(0, Roots(proc, *(proc.with_name(name) for name in ("s", "e", "l", "r"))), PIDS)


def open_file(proc: Path, pid: int, number: int, target: bytes, mount_id: int = 90) -> str:
    """The descriptor's path."""
    descriptor = proc / str(pid) / "fd" / str(number)
    descriptor.symlink_to(os.fsdecode(target))
    (proc / str(pid) / "fdinfo" / str(number)).write_text(f"pos:\t0\nmnt_id:\t{mount_id}\n")
    return str(descriptor)


def test_of_ten_thousand_open_files_a_bounded_number_is_looked_at(scene: Scene, proc: Path) -> None:
    for number in range(10_000):
        open_file(proc, PIDS[0], number, b"/etc/%d" % number)
    for number in range(10_000):
        open_file(proc, PIDS[1], number, b"/mnt/share/%d" % number)
    assert len(scene.open_files(10**9)) == MAX_DESCRIPTORS
    assert len(scene.open_files(3)) == 3
    assert len(file_queries(scene)) == MAX_QUERIES


def test_a_file_is_named_by_its_descriptor_whatever_it_is_called(scene: Scene, proc: Path) -> None:
    """No name of a user's reaches a program, and none leads anybody elsewhere."""
    on_smb = {open_file(proc, PIDS[0], n, target) for n, target in enumerate(HOSTILE)}
    for number, target in enumerate(ELSEWHERE, len(HOSTILE)):
        open_file(proc, PIDS[0], number, target)
    assert set(scene.open_files(100)) == on_smb
    queries = file_queries(scene)
    assert len(queries) == MAX_QUERIES
    assert {command.argv[:2] for command in queries} == {("smbinfo", "filebasicinfo")}
    assert {command.argv[2] for command in queries} <= on_smb


def test_what_a_user_mounted_over_the_share_is_not_asked_for(scene: Scene, proc: Path) -> None:
    open_file(proc, PIDS[0], 0, b"/mnt/share/link to /etc/shadow", mount_id=91)
    assert scene.open_files(100) == []
    assert [command.argv[2] for command in file_queries(scene)] == ["/mnt/share"]


def test_a_descriptor_reaches_the_program_and_the_bundle(
    scene: Scene, proc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    descriptor = open_file(proc, PIDS[0], 7, HOSTILE[0])
    program = tmp_path / "bin" / "smbinfo"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\nprintf "%s|" "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    staging = tmp_path / "staging"
    staging.mkdir()
    (result,) = run_smbinfo(scene, staging)
    assert result.status == "ok"
    assert (staging / "smbinfo.log").read_text() == f"filebasicinfo|{descriptor}|"
    (told,) = json.loads(json.dumps(asdict(result)))["commands"]
    assert told["argv"][-1] == descriptor


def run_smbinfo(scene: Scene, staging: Path) -> list[ActionResult]:
    async def collect() -> list[ActionResult]:
        halt = asyncio.get_running_loop().create_future()
        return await ActionRunner(scene, staging, CollectionConfig(), halt).run([SMBINFO], 0.0)

    return asyncio.run(collect())
