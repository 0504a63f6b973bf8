"""One collection after the other, each by a real collector on a made-up host, for tests."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from agent.collection.collection_tally import CollectorStatistics
from agent.collection.log_collector import LogCollector
from agent.collection.quick_action import Command, Kind, QuickAction
from agent.collection.scene import Roots
from agent.collection.surroundings import HostFacts, Surroundings
from agent.configuration.schema import CollectionConfig
from agent.detection.anomaly import AnomalyAction
from agent.storage.spool import Spool, SpooledBundle
from tests.bundles import members
from tests.evidence import Journal, make_action

CONFIG = CollectionConfig(action_timeout_sec=60, after_sec=0)
HOST = HostFacts("client-7.corp.example", "6.1.0-test", "9.9.9")
MOUNTINFO = (
    "90 22 0:41 / /mnt rw - cifs //nas.corp.example/share "
    "rw,vers=3.1.1,username=svc-backup,addr=10.9.8.7\n"
)


class Outcome(NamedTuple):
    """What is left of a collection."""

    bundles: list[SpooledBundle]
    entries: list[dict[str, str]]
    statistics: CollectorStatistics
    failure: str


class CollectionBench:
    """A spool, and collectors that fill it one after the other."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.spool = Spool(directory / "spool")
        self.spool.prepare()
        self.journal = Journal(directory)
        self.map_file = directory / "state" / "pseudonyms.json"

    def surroundings(self, *actions: QuickAction) -> Surroundings:
        proc, etc = self.directory / "proc", self.directory / "etc"
        (proc / "1").mkdir(parents=True, exist_ok=True)
        (proc / "1" / "mountinfo").write_text(MOUNTINFO)
        etc.mkdir(exist_ok=True)
        (etc / "passwd").write_text("alice:x:1000:1000::/home/alice:/bin/sh\n")
        return Surroundings(HOST, Roots(proc, etc=etc), actions, self.map_file)

    def collect(
        self,
        *actions: QuickAction,
        config: CollectionConfig = CONFIG,
        order: AnomalyAction | None = None,
    ) -> Outcome:
        """By a collector of its own, as after a restart."""
        wanted = tuple(action.name for action in actions)
        order = order or make_action()
        order = replace(order, anomaly=replace(order.anomaly, actions=wanted))
        before = {bundle.id for bundle in self.spool.finished()}
        collector = LogCollector(
            self.spool, config, self.journal.audit, self.surroundings(*actions)
        )
        assert collector.submit(order)
        collector.drain()
        collector.run()
        made = [bundle for bundle in self.spool.finished() if bundle.id not in before]
        failure = collector.failure(order.id)
        return Outcome(made, self.journal.entries(), collector.statistics(), failure)

    def file(self, name: str, content: str | bytes) -> QuickAction:
        """An action that copies ``content``."""
        path = self.directory / f"{name}.source"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return command(name, "cat", str(path))

    def told_by(self, outcome: Outcome) -> dict[str, bytes]:
        """All that leaves the host, and what the journal has of it."""
        (bundle,) = outcome.bundles
        journal = json.dumps(outcome.entries, ensure_ascii=False).encode()
        beside = {"marker": bundle.done.read_bytes(), "journal": journal}
        return {**members(bundle), **beside, "names": str(list(members(bundle))).encode()}


def command(name: str, *argv: str, output: str = "", text: bool = True) -> QuickAction:
    wanted = [Command(argv)]
    file = output or f"{name}.log"
    return QuickAction(name, file, Kind.CMD, lambda _: wanted, "for a test", text=text)


def several(name: str, *argvs: tuple[str, ...]) -> QuickAction:
    wanted = [Command(argv) for argv in argvs]
    return QuickAction(name, f"{name}.log", Kind.CMD, lambda _: wanted, "for a test")
