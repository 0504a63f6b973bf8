"""The table of quick actions, and how they run against a made-up /proc and real programs."""

from __future__ import annotations

import asyncio
import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest

from agent.collection.action_commands import MAX_QUERIES, MAX_THREADS
from agent.collection.action_runner import STATUSES, ActionRunner, limits_of
from agent.collection.quick_action import (
    ActionResult,
    Argv,
    Command,
    Kind,
    QuickAction,
    Span,
    Wave,
)
from agent.collection.quick_actions import QUICK_ACTIONS
from agent.collection.scene import LEAD_SEC, LONGEST_WINDOW_SEC, NS, Roots, Scene
from agent.configuration.schema import ActionLimits, CollectionConfig
from bpf.abi import EVENT
from tests.evidence import BOOT_WALL_NS, make_action, make_events

REFERENCE = {
    "journalctl": "journalctl.log",
    "stats": "cifsstats.log",
    "debugdata": "debug_data.log",
    "dmesg": "dmesg.log",
    "mounts": "mounts.log",
    "smbinfo": "smbinfo.log",
    "syslogs": "syslogs.log",
}
OTHERS = {
    "openfiles": "open_files.log",
    "osinfo": "osinfo.log",
    "sockets": "sockets.log",
    "stacks": "stacks.log",
    "mountinfo": "mountinfo.log",
    "procstat": "procstat.jsonl",
    "netcapture": "packets.pcap",
    "keyrings": "keyrings.log",
}
SMB_PID, CIFSD_PID = 4242, 77
MOUNTINFO = r"""
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
90 22 0:41 / /mnt/two\040words rw shared:2 master:1 - cifs //server/share rw,vers=3.1.1
91 22 0:42 / /mnt/plain rw - smb3 //server/other rw
92 22 0:41 / /mnt/plain rw - cifs //server/share rw
93 22 0:43 / /mnt/cifs rw - ext4 /dev/vdb rw
"""
CONFIG = CollectionConfig(action_timeout_sec=20, action_max_output_mb=1)
BY_NAME = {action.name: action for action in QUICK_ACTIONS}


@pytest.fixture
def roots(tmp_path: Path) -> Roots:
    """A host with a cifs mount, a journal, a syslog, and a process that works on the mount."""
    files = {
        "proc/fs/cifs/DebugData": "Display Internal CIFS Data\n",
        "proc/fs/cifs/Stats": "Resources in use\n",
        "proc/fs/cifs/open_files": "# Version:1\n",
        "proc/1/mounts": "//server/share /mnt cifs rw 0 0\n",
        "proc/self/mounts": "//server/share /mnt cifs ro 0 0\n",
        "proc/self/mountinfo": MOUNTINFO,
        "proc/keys": "0a7f4d7f I--Q---     1 perm 3f030000     0     0 logon     cifs:a:10.0.0.1\n",
        f"proc/{SMB_PID}/comm": "backup\n",
        f"proc/{SMB_PID}/task/{SMB_PID}/stack": "[<0>] wait_for_response+0x1/0x2 [cifs]\n",
        f"proc/{SMB_PID}/task/{SMB_PID}/wchan": "wait_for_response",
        f"proc/{CIFSD_PID}/comm": "cifsd\n",
        f"proc/{CIFSD_PID}/stack": "[<0>] cifs_readv_from_socket+0x1/0x2 [cifs]\n",
        "etc/os-release": "ID=test\n",
        "log/journal/machine/system.journal": "",
        "log/syslog": "".join(f"line {n}\n" for n in range(900)),
    }
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    (tmp_path / "run").mkdir()
    for name in ("fd", "fdinfo"):
        (tmp_path / f"proc/{SMB_PID}/{name}").mkdir()
    for number, target in enumerate(
        ["/dev/null", "/mnt/two words/a", "/mnt/two words/a", "pipe:[1]"]
    ):
        (tmp_path / f"proc/{SMB_PID}/fd/{number}").symlink_to(target)
        (tmp_path / f"proc/{SMB_PID}/fdinfo/{number}").write_text("pos:\t0\nmnt_id:\t90\n")
    names = ("proc", "sys", "etc", "log", "run")
    return Roots(*(tmp_path / name for name in names))


@pytest.fixture
def scene(roots: Roots) -> Scene:
    return Scene(1_700_000_000, roots, (SMB_PID,))


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


def action(name: str, *commands: Argv, wave: Wave = Wave.LASTING) -> QuickAction:
    wanted = [Command(argv) for argv in commands]
    return QuickAction(name, f"{name}.log", Kind.CMD, lambda _: wanted, "for a test", wave)


def argvs(name: str, scene: Scene) -> list[Argv]:
    return [command.argv for command in BY_NAME[name].commands(scene)]


def run(
    actions: list[QuickAction],
    scene: Scene,
    staging: Path,
    config: CollectionConfig = CONFIG,
    length_sec: float = 0.0,
) -> dict[str, ActionResult]:
    async def collect() -> list[ActionResult]:
        halt = asyncio.get_running_loop().create_future()
        return await ActionRunner(scene, staging, config, halt).run(actions, length_sec)

    return {result.name: result for result in asyncio.run(collect())}


@pytest.mark.parametrize("action", QUICK_ACTIONS, ids=lambda action: action.name)
def test_every_action_keeps_the_rules(
    action: QuickAction, scene: Scene, bin_dir: Path, tmp_path: Path
) -> None:
    """Conformance: what holds for all, whatever they collect."""
    script(bin_dir / "journalctl", "exit 0")
    commands = action.commands(scene)
    assert commands, "on this host there is something to collect"
    assert Path(action.output).name == action.output
    assert action.output.endswith((".log", ".jsonl") if action.text else (".pcap",))
    assert len(action.why) > 10
    for command in commands:
        program, *words = command.argv
        assert all(isinstance(word, str) and word for word in command.argv)
        assert Path(program).name not in {"sh", "bash", "env", "sudo"}, "no shell"
        assert not any("/mnt" in word for word in words) or action.name == "smbinfo"
        if action.kind is Kind.FILE:
            assert program in {"cat", "tail"} or action.name == "procstat"
    bare = Scene(0, Roots(*(tmp_path / "nothing" for _ in range(5))))
    absolute = {word for command in action.commands(bare) for word in command.argv[1:]}
    assert not {word for word in absolute if word.startswith(str(tmp_path / "nothing"))} - {
        f"--proc-root={tmp_path / 'nothing'}"
    }, "only what is there is asked for"


def test_the_table_is_complete_and_no_name_is_there_twice() -> None:
    outputs = {action.name: action.output for action in QUICK_ACTIONS}
    assert outputs == REFERENCE | OTHERS
    assert len(QUICK_ACTIONS) == len(outputs) == len(set(outputs.values()))


def test_what_is_volatile_starts_first() -> None:
    names = [action.name for action in QUICK_ACTIONS]
    assert names[:4] == ["debugdata", "stats", "stacks", "openfiles"]
    waves = [action.wave.value for action in QUICK_ACTIONS]
    assert waves == sorted(waves)
    assert BY_NAME["smbinfo"].wave is Wave.LASTING, "it changes what the others show"


def test_what_lasts_begins_when_what_does_not_is_done(scene: Scene, staging: Path) -> None:
    """The file is there only at the end of the volatile action."""
    done = staging / "done"
    results = run(
        [
            action("late", ("cat", str(done))),
            action("early", ("sh", "-c", f"sleep 0.3; echo x > {done}"), wave=Wave.VOLATILE),
        ],
        scene,
        staging,
    )
    assert [(result.name, result.status) for result in results.values()] == [
        ("late", "ok"),
        ("early", "ok"),
    ]
    assert (staging / "late.log").read_text() == "x\n"


def test_what_hangs_in_the_first_wave_does_not_keep_the_second(scene: Scene, staging: Path) -> None:
    """The volatile one waits for a file that the other makes."""
    waits = ("sh", "-c", f"until [ -e {staging}/seen ]; do sleep 0.05; done")
    results = run(
        [
            action("hangs", waits, wave=Wave.VOLATILE),
            action("goes", ("touch", f"{staging}/seen")),
        ],
        scene,
        staging,
    )
    assert {result.status for result in results.values()} == {"ok"}


def test_an_action_for_the_collections_length_ends_with_it(scene: Scene, staging: Path) -> None:
    sampler = dataclasses.replace(
        action("sampler", ("sh", "-c", "echo on; sleep 60 & wait")), span=Span.COLLECTION
    )
    results = run([sampler, action("moment", ("sleep", "0.2"))], scene, staging, length_sec=0.5)
    assert results["sampler"].status == "ok"
    assert (staging / "sampler.log").read_text() == "on\n"
    assert 0.5 < results["sampler"].duration_sec < 30


def test_its_own_limit_ends_it_before(scene: Scene, staging: Path) -> None:
    sampler = dataclasses.replace(
        action("sampler", ("sleep", "60")), span=Span.COLLECTION, timeout_sec=0.3
    )
    results = run([sampler], scene, staging, length_sec=1.5)
    assert results["sampler"].status == "ok"
    assert results["sampler"].duration_sec < 1.4


def test_an_actions_limits_are_the_operators_else_its_own_else_those_for_all() -> None:
    config = CollectionConfig(
        action_timeout_sec=7,
        action_max_output_mb=2,
        limits={"netcapture": ActionLimits(timeout_sec=99), "stats": ActionLimits(None, 3)},
    )
    found = {
        name: (limits.timeout_sec, limits.max_bytes >> 20, limits.keep_tail)
        for name, action in BY_NAME.items()
        if (limits := limits_of(action, config))
    }
    assert found["netcapture"] == (99, 8, False)
    assert found["stats"] == (7, 3, True)
    assert found["dmesg"] == (7, 2, True)
    assert found["procstat"] == (float("inf"), 2, True), "it ends with the collection"


def test_the_journal_is_asked_for_the_incidents_own_time(scene: Scene, bin_dir: Path) -> None:
    script(bin_dir / "journalctl", "exit 0")
    for name in ("journalctl", "dmesg"):
        (argv,) = argvs(name, scene)
        assert "--since=@1700000000" in argv
        assert "--output=short-monotonic" in argv, "the clock of the events"
    assert "--dmesg" in argvs("dmesg", scene)[0]
    assert "--dmesg" not in argvs("journalctl", scene)[0]


def test_the_window_begins_before_the_incident_and_is_bounded(roots: Roots) -> None:
    order = make_action()
    opened_sec = (order.incident.opened_ns + BOOT_WALL_NS) // NS
    assert Scene.of_order(order, roots).since_sec == opened_sec - LEAD_SEC
    old = dataclasses.replace(order.incident, opened_ns=order.incident.opened_ns - 10_000 * NS)
    lasting = Scene.of_order(dataclasses.replace(order, incident=old), roots)
    assert lasting.since_sec == opened_sec - LONGEST_WINDOW_SEC - LEAD_SEC


def test_the_scenes_processes_are_the_one_asked_for_the_waiting_and_the_busiest() -> None:
    events = np.zeros(5, EVENT)
    events["cmd_end_time_ns"] = 50 * NS
    events["pid"] = [8, 9, 9, 0, 11]
    order = make_action(np.concatenate([make_events(1), events]))
    recent = dataclasses.replace(order.incident, opened_ns=51 * NS)
    order = dataclasses.replace(order, incident=recent, target_pid=5)
    assert Scene.of_order(order, Roots()).pids == (5, 77, 9, 8, 11, 4242)
    later = dataclasses.replace(order.incident, opened_ns=500 * NS)
    alone = dataclasses.replace(order, incident=later)
    assert Scene.of_order(alone, Roots()).pids == (5, 77), "the others' commands are long past"


def test_without_a_journal_the_kernels_ring_is_read(scene: Scene) -> None:
    (scene.roots.log / "journal/machine/system.journal").unlink()
    assert argvs("journalctl", scene) == []
    assert argvs("dmesg", scene)[0][0] == "dmesg"
    (scene.roots.run / "log/journal/machine").mkdir(parents=True)
    (scene.roots.run / "log/journal/machine/system.journal").touch()
    assert argvs("dmesg", scene)[0][0] == "journalctl"


def test_syslog_else_messages_else_nothing(scene: Scene) -> None:
    log = scene.roots.log
    assert argvs("syslogs", scene)[0][-1] == str(log / "syslog")
    (log / "syslog").rename(log / "messages")
    assert argvs("syslogs", scene)[0][-1] == str(log / "messages")
    (log / "messages").unlink()
    assert argvs("syslogs", scene) == []


def test_smbinfo_is_asked_about_the_files_in_use(scene: Scene) -> None:
    process = scene.roots.proc / str(SMB_PID)
    (process / "mountinfo").write_text(MOUNTINFO)
    (asked,) = argvs("smbinfo", scene)
    assert asked[:2] == ("smbinfo", "filebasicinfo")
    assert asked[2] in {f"{process}/fd/1", f"{process}/fd/2"}, "the same file twice is one"
    for info in (process / "fdinfo").iterdir():
        info.write_text("mnt_id:\t22\n")
    assert argvs("smbinfo", scene)[0][2] == "/mnt/two words", "another mount hides this one"


def test_else_about_a_bounded_number_of_mounts(roots: Roots) -> None:
    lines = [f"{n} 22 0:4{n} / /mnt/{n} rw - cifs //s/{n} rw" for n in range(50)]
    (roots.proc / "self" / "mountinfo").write_text("\n".join(lines))
    commands = argvs("smbinfo", Scene(0, roots))
    assert commands[0] == ("smbinfo", "filebasicinfo", "/mnt/0")
    assert len(commands) == MAX_QUERIES


def test_sockets_and_packets_of_every_port_that_a_mount_names(scene: Scene) -> None:
    assert argvs("sockets", scene)[0][-1] == "( dport = :445 )"
    with (scene.roots.proc / "self/mountinfo").open("a") as file:
        file.write("94 22 0:44 / /mnt/x rw - cifs //s/x rw,port=4450,vers=3.1.1\n")
    assert argvs("sockets", scene)[0][-1] == "( dport = :445 or dport = :4450 )"
    assert argvs("netcapture", scene)[0][-1] == "tcp port 445 or tcp port 4450"


def test_stacks_of_the_processes_and_of_the_kernels_smb_threads(
    scene: Scene, staging: Path
) -> None:
    result = run([BY_NAME["stacks"]], scene, staging)["stacks"]
    assert result.status == "ok"
    text = (staging / "stacks.log").read_text()
    assert "wait_for_response+0x1/0x2" in text
    assert "cifs_readv_from_socket" in text
    assert f"{SMB_PID}/task/{SMB_PID}/wchan" in text


def test_nothing_of_its_kind_is_told_apart_from_a_failure(scene: Scene, staging: Path) -> None:
    wanted = [
        Command(("sh", "-c", "echo no such ticket >&2; exit 1"), absent_exit=1),
        Command(("sh", "-c", "exit 2"), absent_exit=1),
        Command(("echo", "fine")),
        Command(("sh", "-c", "echo one of two; exit 1"), absent_exit=1),
    ]
    mixed = QuickAction("mixed", "mixed.log", Kind.CMD, lambda _: wanted, "for a test")
    absent = QuickAction("absent", "absent.log", Kind.CMD, lambda _: wanted[:1], "for a test")
    results = run([mixed, absent], scene, staging)
    assert (results["absent"].status, results["absent"].file) == ("not_there", None)
    assert (results["mixed"].status, results["mixed"].exit) == ("failed", 2)
    statuses = [report.status for report in results["mixed"].commands]
    assert statuses == ["not_there", "failed", "ok", "ok"]
    assert results["mixed"].commands[0].stderr_tail == "no such ticket"
    assert not (staging / "absent.log").exists()


def test_files_are_copied(scene: Scene, staging: Path) -> None:
    names = ("debugdata", "stats", "mounts", "syslogs")
    results = run([BY_NAME[name] for name in names], scene, staging)
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
    scene = Scene(0, Roots(*(tmp_path for _ in range(5))))
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


def test_every_output_of_several_begins_in_a_line_of_its_own(scene: Scene, staging: Path) -> None:
    run([action("many", ("printf", "one"), ("true",), ("echo", "two"))], scene, staging)
    assert (staging / "many.log").read_text() == (
        "==> printf one <==\none\n==> true <==\n==> echo two <==\ntwo\n"
    )


def test_no_smbinfo_program_is_not_a_failure(
    roots: Roots, staging: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(roots.run))
    result = run([BY_NAME["smbinfo"]], Scene(0, roots), staging)["smbinfo"]
    assert (result.status, result.file) == ("not_there", None)
    assert not (staging / "smbinfo.log.0").exists()


def test_one_bad_action_stops_no_other(roots: Roots, staging: Path) -> None:
    (staging / "taken.log").write_text("")
    results = run(
        [
            action("hangs", ("sleep", "60")),
            action("fails", ("ls", "/no/such/place")),
            action("floods", ("seq", "100000")),
            action("missing", ("no-such-program-here",)),
            action("taken", ("echo", "x")),
            dataclasses.replace(
                action("unreadable"),
                commands=lambda _: [Command(((roots.proc / "no").read_text(),))],
            ),
            action("fine", ("echo", "fine")),
        ],
        Scene(0, roots),
        staging,
        CollectionConfig(action_timeout_sec=3, action_max_output_mb=0.01),
    )
    statuses = {result.name: result.status for result in results.values()}
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
    assert "No such file" in results["fails"].stderr_tail
    assert "File exists" in results["taken"].stderr_tail
    assert results["unreadable"].file is None
    assert [name for name, result in results.items() if result.cut] == ["floods"]
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


def test_the_documentation_is_the_table() -> None:
    text = (Path(__file__).parents[2] / "docs" / "actions.md").read_text()
    rows = [line.strip("| ").split(" | ")[:3] for line in text.splitlines() if line[:3] == "| `"]
    assert rows == [
        [f"`{action.name}`", f"`{action.output}`", action.why] for action in QUICK_ACTIONS
    ]


def test_a_failure_is_told_although_the_output_was_cut(scene: Scene, staging: Path) -> None:
    fails = action("fails", ("sh", "-c", "seq 100000; exit 3"))
    small = CollectionConfig(action_timeout_sec=20, action_max_output_mb=0.01)
    result = run([fails], scene, staging, small)["fails"]
    assert (result.status, result.exit, result.cut) == ("failed", 3, True)


def test_a_defect_in_one_action_stops_no_other(scene: Scene, staging: Path) -> None:
    broken = dataclasses.replace(action("broken"), commands=lambda _: [{}["no such key"]])
    results = run([broken, action("fine", ("echo", "fine"))], scene, staging)
    assert (results["broken"].status, results["fine"].status) == ("failed", "ok")


def test_a_thread_that_waits_is_shown_before_others(scene: Scene) -> None:
    for number in range(SMB_PID + 1, SMB_PID + 60):
        thread = scene.roots.proc / f"{SMB_PID}/task/{number}"
        thread.mkdir()
        (thread / "stack").touch()
    waiting = dataclasses.replace(scene, threads=frozenset({SMB_PID + 59}))
    shown = argvs("stacks", waiting)[0]
    assert f"/task/{SMB_PID + 59}/stack" in shown[3]
    assert len([word for word in shown if word.endswith("/stack")]) == MAX_THREADS


def test_only_plain_ticket_caches_are_asked_the_newest_first(scene: Scene) -> None:
    directory = scene.roots.proc / "1/root/tmp"
    directory.mkdir(parents=True)
    for number in range(9):
        os.mkfifo(directory / f"krb5cc_{number}")
    (directory / "krb5cc_link").symlink_to("/dev/watchdog")
    for age, number in enumerate((1000, 1001)):
        (directory / f"krb5cc_{number}").write_text("ticket")
        os.utime(directory / f"krb5cc_{number}", (age, age))
    asked = [argv[2] for argv in argvs("keyrings", scene) if argv[:2] == ("klist", "-c")]
    assert [Path(name).name for name in asked] == ["krb5cc_1001", "krb5cc_1000"]
