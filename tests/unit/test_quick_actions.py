"""The table of quick actions, and how they run against a made-up /proc and real programs."""

from __future__ import annotations

import asyncio
import dataclasses
import os
from pathlib import Path

import pytest

from agent.collection.action_runner import STATUSES, run_actions
from agent.collection.quick_actions import (
    LEAD_SEC,
    MAX_MOUNTS,
    QUICK_ACTIONS,
    ActionResult,
    Argv,
    Kind,
    QuickAction,
    Roots,
    Scene,
)
from agent.collection.subprocesses import Limits

REFERENCE = {
    "journalctl": "journalctl.log",
    "stats": "cifsstats.log",
    "debugdata": "debug_data.log",
    "dmesg": "dmesg.log",
    "mounts": "mounts.log",
    "smbinfo": "smbinfo.log",
    "syslogs": "syslogs.log",
}
MOUNTINFO = r"""
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
90 22 0:41 / /mnt/two\040words rw shared:2 master:1 - cifs //server/share rw,vers=3.1.1
91 22 0:42 / /mnt/plain rw - smb3 //server/other rw
92 22 0:41 / /mnt/plain rw - cifs //server/share rw
93 22 0:43 / /mnt/cifs rw - ext4 /dev/vdb rw
"""
LIMITS = Limits(timeout_sec=20, max_bytes=1 << 20, grace_sec=0.2)
BY_NAME = {action.name: action for action in QUICK_ACTIONS}


@pytest.fixture
def roots(tmp_path: Path) -> Roots:
    """A host with a cifs mount, a journal and a syslog."""
    for name in ("proc/fs/cifs", "proc/1", "proc/self", "log/journal/machine", "run"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "proc/fs/cifs/DebugData").write_text("Display Internal CIFS Data\n")
    (tmp_path / "proc/fs/cifs/Stats").write_text("Resources in use\n")
    (tmp_path / "log/journal/machine/system.journal").touch()
    (tmp_path / "proc/1/mounts").write_text("//server/share /mnt cifs rw 0 0\n")
    (tmp_path / "proc/self/mounts").write_text("//server/share /mnt cifs ro 0 0\n")
    (tmp_path / "proc/self/mountinfo").write_text(MOUNTINFO)
    (tmp_path / "log/syslog").write_text("".join(f"line {n}\n" for n in range(900)))
    return Roots(tmp_path / "proc", tmp_path / "log", tmp_path / "run")


@pytest.fixture
def bin_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory first on PATH."""
    directory = tmp_path / "bin"
    directory.mkdir()
    monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")
    return directory


@pytest.fixture
def staging(tmp_path: Path) -> Path:
    directory = tmp_path / "staging"
    directory.mkdir()
    return directory


def script(path: Path, body: str) -> None:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


def action(name: str, *commands: Argv) -> QuickAction:
    return QuickAction(name, f"{name}.log", Kind.CMD, lambda _: list(commands), "for a test")


def run(actions: list[QuickAction], scene: Scene, staging: Path) -> dict[str, ActionResult]:
    results = asyncio.run(run_actions(actions, scene, staging, LIMITS))
    return {result.name: result for result in results}


def test_every_action_keeps_the_rules(roots: Roots, bin_dir: Path) -> None:
    for program in ("journalctl", "smbinfo"):
        script(bin_dir / program, "exit 0")
    assert {action.name: action.output for action in QUICK_ACTIONS} == REFERENCE
    scene = Scene(1_700_000_000, roots)
    for action in QUICK_ACTIONS:
        commands = action.commands(scene)
        assert commands, action.name
        assert Path(action.output).name == action.output
        assert len(action.why) > 10
        for argv in commands:
            assert isinstance(argv, tuple), action.name
            assert all(isinstance(word, str) and word for word in argv)
            assert "/" not in argv[0], "programs are found on PATH"
            assert not {"sh", "bash"} & set(argv)
        if action.kind is Kind.FILE:
            assert [argv[0] in {"cat", "tail"} for argv in commands] == [True]


def test_what_is_volatile_starts_first() -> None:
    names = [action.name for action in QUICK_ACTIONS]
    assert names[:3] == ["debugdata", "stats", "mounts"]
    assert names.index("journalctl") > names.index("smbinfo")


def test_the_journal_is_asked_for_the_incidents_own_time(roots: Roots, bin_dir: Path) -> None:
    script(bin_dir / "journalctl", "exit 0")
    scene = Scene.of_trigger(1_700_000_000_999_999_999, roots)
    for name in ("journalctl", "dmesg"):
        (argv,) = BY_NAME[name].commands(scene)
        assert f"--since=@{1_700_000_000 - LEAD_SEC}" in argv
    assert "--dmesg" in BY_NAME["dmesg"].commands(scene)[0]
    assert "--dmesg" not in BY_NAME["journalctl"].commands(scene)[0]


def test_without_a_journal_the_kernels_ring_is_read(roots: Roots) -> None:
    (roots.log / "journal/machine/system.journal").unlink()
    scene = Scene(0, roots)
    assert BY_NAME["journalctl"].commands(scene) == []
    assert BY_NAME["dmesg"].commands(scene)[0][0] == "dmesg"
    (roots.run / "log/journal/machine").mkdir(parents=True)
    (roots.run / "log/journal/machine/system.journal").touch()
    assert BY_NAME["dmesg"].commands(scene)[0][0] == "journalctl"


def test_syslog_else_messages_else_nothing(roots: Roots) -> None:
    scene = Scene(0, roots)
    assert BY_NAME["syslogs"].commands(scene)[0][-1] == str(roots.log / "syslog")
    (roots.log / "syslog").rename(roots.log / "messages")
    assert BY_NAME["syslogs"].commands(scene)[0][-1] == str(roots.log / "messages")
    (roots.log / "messages").unlink()
    assert BY_NAME["syslogs"].commands(scene) == []


def test_smbinfo_is_asked_about_a_bounded_number_of_mounts(roots: Roots) -> None:
    lines = [f"{n} 22 0:4{n} / /mnt/{n} rw - cifs //s/{n} rw" for n in range(50)]
    (roots.proc / "self" / "mountinfo").write_text("\n".join(lines))
    commands = BY_NAME["smbinfo"].commands(Scene(0, roots))
    assert commands[0] == ("smbinfo", "filebasicinfo", "/mnt/0")
    assert len(commands) == MAX_MOUNTS


def test_files_are_copied(roots: Roots, staging: Path) -> None:
    names = ("debugdata", "stats", "mounts", "syslogs")
    results = run([BY_NAME[name] for name in names], Scene(0, roots), staging)
    assert {result.status for result in results.values()} == {"ok"}
    assert (staging / "debug_data.log").read_text() == "Display Internal CIFS Data\n"
    assert (staging / "cifsstats.log").read_text() == "Resources in use\n"
    assert (staging / "mounts.log").read_text() == "//server/share /mnt cifs rw 0 0\n"
    lines = (staging / "syslogs.log").read_text().splitlines()
    assert (len(lines), lines[-1]) == (500, "line 899")
    for result in results.values():
        assert result.file == BY_NAME[result.name].output
        assert result.bytes == (staging / BY_NAME[result.name].output).stat().st_size


def test_the_real_proc_is_read(staging: Path) -> None:
    result = run([BY_NAME["mounts"]], Scene(0), staging)["mounts"]
    assert result.status == "ok"
    assert " / " in (staging / "mounts.log").read_text()


def test_a_host_without_cifs_has_nothing_to_collect(tmp_path: Path, staging: Path) -> None:
    (tmp_path / "self").mkdir()
    (tmp_path / "self" / "mountinfo").write_text("")
    scene = Scene(0, Roots(tmp_path, tmp_path, tmp_path))
    actions = [BY_NAME[name] for name in ("debugdata", "stats", "smbinfo", "syslogs", "journalctl")]
    results = run(actions, scene, staging)
    assert {result.status for result in results.values()} == {"not_there"}
    assert {result.file for result in results.values()} == {None}
    assert list(staging.iterdir()) == []


def test_outputs_of_several_mounts_become_one_file(
    roots: Roots, bin_dir: Path, staging: Path
) -> None:
    script(
        bin_dir / "smbinfo", 'echo "asked $2"; [ "$2" = /mnt/plain ] || { echo no >&2; exit 5; }'
    )
    result = run([BY_NAME["smbinfo"]], Scene(0, roots), staging)["smbinfo"]
    assert (staging / "smbinfo.log").read_text() == (
        "==> smbinfo filebasicinfo /mnt/two words <==\nasked /mnt/two words\n"
        "==> smbinfo filebasicinfo /mnt/plain <==\nasked /mnt/plain\n"
    )
    assert [path.name for path in staging.iterdir()] == ["smbinfo.log"]
    assert (result.status, result.exit, result.stderr_tail) == ("failed", 5, "no")
    assert result.bytes == (staging / "smbinfo.log").stat().st_size


def test_no_smbinfo_program_is_not_a_failure(
    roots: Roots, staging: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(roots.run))
    result = run([BY_NAME["smbinfo"]], Scene(0, roots), staging)["smbinfo"]
    assert (result.status, result.file) == ("not_there", None)
    assert not (staging / "smbinfo.log.0").exists()


def test_one_bad_action_stops_no_other(roots: Roots, staging: Path) -> None:
    (staging / "taken.log").write_text("")
    results = asyncio.run(
        run_actions(
            [
                action("hangs", ("sleep", "60")),
                action("fails", ("ls", "/no/such/place")),
                action("floods", ("yes",)),
                action("missing", ("no-such-program-here",)),
                action("taken", ("echo", "x")),
                dataclasses.replace(
                    action("unreadable"),
                    commands=lambda _: [((roots.proc / "no").read_text(),)],
                ),
                action("fine", ("echo", "fine")),
            ],
            Scene(0, roots),
            staging,
            Limits(timeout_sec=3, max_bytes=10_000, grace_sec=0.2),
        )
    )
    statuses = {result.name: result.status for result in results}
    assert statuses == {
        "hangs": "timed_out",
        "fails": "failed",
        "floods": "cut",
        "missing": "not_there",
        "taken": "failed",
        "unreadable": "failed",
        "fine": "ok",
    }
    assert set(statuses.values()) == set(STATUSES) - {"stopped"}
    by_name = {result.name: result for result in results}
    assert "No such file" in by_name["fails"].stderr_tail
    assert "File exists" in by_name["taken"].stderr_tail
    assert by_name["unreadable"].file is None
    assert (staging / "fine.log").read_text() == "fine\n"


def test_actions_run_at_the_same_time(roots: Roots, staging: Path) -> None:
    """Each of two reads the pipe that the other writes: one after the other would hang."""
    pipe = staging / "pipe"
    os.mkfifo(pipe)
    results = run(
        [action("reader", ("cat", str(pipe))), action("writer", ("tee", str(pipe)))],
        Scene(0, roots),
        staging,
    )
    assert {result.status for result in results.values()} == {"ok"}
