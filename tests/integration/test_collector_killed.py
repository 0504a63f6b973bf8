"""A collector killed at any moment: after the restart there are whole bundles and nothing else."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from agent.collection.surroundings import Surroundings
from agent.collection.unfinished_bundles import UnfinishedBundles
from agent.configuration.schema import CollectionConfig
from agent.storage.spool import Spool
from tests.evidence import wait_until

ROUNDS = 6
PROGRAM = """
import pathlib, sys, threading
from agent.service.audit import Audit
from agent.configuration.schema import CollectionConfig
from agent.collection.collection_tally import Listener
from agent.collection.log_collector import LogCollector
from agent.collection.quick_action import Command, Kind, QuickAction
from agent.collection.surroundings import Surroundings
from agent.storage.spool import Spool
from tests.evidence import make_action, make_events

room = threading.Semaphore(8)
slow = QuickAction("slow", "slow.log", Kind.CMD, lambda _: [Command(("sleep", "0.3"))], "a test")
collector = LogCollector(
    Spool(pathlib.Path(sys.argv[1])),
    CollectionConfig(after_sec=0),
    Audit(enabled=False),
    Surroundings(actions=[slow]),
    listener=Listener(published=lambda bundle: room.release()),
)
threading.Thread(target=collector.run, daemon=True).start()
while True:
    room.acquire()
    collector.submit(make_action(make_events(2000), actions=("slow",)))
"""


def test_after_a_kill_there_are_whole_bundles_only(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    spool.prepare()
    moments = random.Random(7)  # noqa: S311 - when to kill is no secret
    fates: list[str] = []
    for half_done in [False, True] * (ROUNDS // 2):
        before = len(spool.finished())
        with subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(spool.root)], cwd=Path(__file__).parents[2]
        ) as collector:
            wait_until(lambda seen=before: len(spool.finished()) > seen + 3)  # type: ignore[misc]
            if half_done:
                wait_until(lambda held=collector: _is_held_half_done(held, spool))  # type: ignore[misc]
            else:
                time.sleep(moments.uniform(0, 0.1))  # the moment is what varies, nothing is awaited
            collector.kill()
        finished = {bundle.id for bundle in spool.finished()}
        spool.recover()
        recovered = list(UnfinishedBundles(spool, Surroundings(), CollectionConfig).recover())
        fates += [one.fate for one in recovered]
        finished |= {one.bundle_id for one in recovered if one.fate == "finished"}
        assert {bundle.id for bundle in spool.finished()} == finished
        assert list(spool.staging.iterdir()) == []
        assert len(list(spool.batches.iterdir())) == 2 * len(finished)
    for bundle in spool.finished():
        archive = bundle.manifest()["archive"]
        assert archive["size"] == bundle.size
        assert archive["sha256"] == hashlib.sha256(bundle.archive.read_bytes()).hexdigest()
    assert fates.count("finished") >= ROUNDS // 2, "a held collection was not finished"


def _is_held_half_done(collector: subprocess.Popen[bytes], spool: Spool) -> bool:
    """Stop it where it is; it goes on unless a bundle's evidence is whole and not yet published."""
    collector.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, collector.pid, os.WSTOPPED)
    drafts = spool.staging.glob("*/manifest.json")
    if any(not spool.was_made(draft.parent.name) for draft in drafts):
        return True
    collector.send_signal(signal.SIGCONT)
    return False
