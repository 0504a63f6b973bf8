"""The agent, from its start to a published bundle and an eviction.

All that the matrix assumes of the agent's insides stands here and in `agent_start`.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agent.collection.collection_tally import Listener
from agent.collection.log_collector import LogCollector
from agent.collection.quick_action import Command, Kind, QuickAction, Wave
from agent.collection.surroundings import HostFacts, Surroundings
from agent.configuration.schema import CollectionConfig
from agent.detection.anomaly import AnomalyAction
from agent.service.audit import Audit
from agent.storage.durable_file import temporary_beside
from agent.storage.spool import ARCHIVE, DONE, Manifest, Spool, SpooledBundle
from tests.crash_matrix.agent_start import start
from tests.crash_matrix.invariants import broken_after_restart
from tests.crash_matrix.report import Report
from tests.crash_matrix.tracing import run_in_child
from tests.crash_matrix.victim import ABSENT, DELIVERED, EVICTED, PENDING, Victim
from tests.evidence import make_action

# One after the other, so that their outputs are written in one order; both are read() and write(),
# which a replay can follow (cat copies within the kernel).
ACTIONS = (
    QuickAction(
        "greeting",
        "a.log",
        Kind.CMD,
        lambda _: [Command(("echo", "hello"))],
        "for the matrix",
        Wave.VOLATILE,
    ),
    QuickAction(
        "version",
        "b.log",
        Kind.FILE,
        lambda scene: [Command(("head", "--bytes=500", str(scene.roots.proc / "version")))],
        "for the matrix",
    ),
)


def _id(letter: str) -> str:
    return f"01HF{'0' * 21}{letter}"


SHIPPED_BUNDLE, EVICTED_BUNDLE, KEPT_BUNDLE = _id("S"), _id("E"), _id("K")
DRAFT, ORPHAN, FIRST, SECOND = _id("D"), _id("Q"), _id("A"), _id("B")


def seed_used_spool(root: Path) -> None:
    """Finished bundles, one of them shipped, and what killed runs may leave."""
    status = run_in_child(lambda: _make_bundles(root)) | run_in_child(lambda: _leave_draft(root))
    if status != 0:
        raise RuntimeError("the victim's spool could not be made")
    spool = Spool(root)
    spool.write_receipt(SHIPPED_BUNDLE, {"stored": True})
    spool.path(ORPHAN, ARCHIVE).write_bytes(b"its marker was not written")
    temporary_beside(spool.path(ORPHAN, DONE)).write_bytes(b"{")
    (spool.staging / ORPHAN).mkdir()
    (spool.staging / ORPHAN / "cut.log").write_bytes(b"half a li")


def seed_nothing(root: Path) -> None:
    """The agent's very first start: not even the directory is there."""


def collect_and_evict(root: Path, report: Report) -> None:
    """Start, remove a shipped and an unshipped bundle, collect one; then collect another."""
    spool = _start_twice(root, report)
    _remove(spool, SHIPPED_BUNDLE, None, report)
    _remove(spool, EVICTED_BUNDLE, {"id": EVICTED_BUNDLE, "reason": "size"}, report)
    _collect(spool, (FIRST, SECOND), report)


def collect_first(root: Path, report: Report) -> None:
    """Start on nothing, collect one bundle, then another."""
    _collect(_start_twice(root, report), (FIRST, SECOND), report)


def _start_twice(root: Path, report: Report) -> Spool:
    """A start that fails says why; the next one, a moment later, must not."""
    try:
        return start(root)
    except OSError as error:
        report.failure("start", str(error))
        return start(root)


def _remove(spool: Spool, bundle_id: str, tombstone: Manifest | None, report: Report) -> None:
    try:
        (bundle,) = (bundle for bundle in spool.finished() if bundle.id == bundle_id)
        spool.remove(bundle, tombstone)
    except OSError as error:
        report.failure("removal", str(error))
    else:
        report.promise(bundle_id, DELIVERED if tombstone is None else EVICTED)


def _collect(spool: Spool, bundle_ids: tuple[str, ...], report: Report) -> None:
    """One after the other, in this thread; the last one must work."""

    def seen(bundle_id: str) -> bool:
        return any(bundle.id == bundle_id for bundle in spool.finished())

    def published(bundle: SpooledBundle) -> None:
        report.promise(bundle.id, PENDING)
        if not seen(bundle.id):
            report.broken(f"{bundle.id} is said to be published, but is not there")
        ended(bundle.id)

    def failed(order: AnomalyAction) -> None:
        report.failure("collection", collector.statistics().last_failure)
        if seen(order.id):
            report.broken(f"{order.id} is said to have failed, but is there")
        ended(order.id)

    def ended(bundle_id: str) -> None:
        if bundle_id == bundle_ids[-2]:
            report.tried()

    collector = _new_collector(spool, Listener(published, failed))
    for bundle_id in bundle_ids:
        collector.submit(make_action(actions=("greeting", "version"), bundle_id=bundle_id))
    collector.drain()
    with one_thread():
        collector.run()
    statistics = collector.statistics()
    if statistics.last_bundle_id != bundle_ids[-1]:
        report.broken(f"the order after it did not work either: {statistics.last_failure}")
    if statistics.collected + statistics.failed != len(bundle_ids):
        report.broken(f"{len(bundle_ids)} orders, but {statistics}")
    report.worked()


def _new_collector(spool: Spool, listener: Listener | None = None) -> LogCollector:
    config = CollectionConfig(max_concurrent=1, after_sec=0)
    surroundings = Surroundings(HostFacts("client-7", "6.1.0-test", "9.9.9"), actions=ACTIONS)
    return LogCollector(spool, config, Audit(enabled=False), surroundings, listener)


def _make_bundles(root: Path) -> None:
    collector = _new_collector(start(root))
    for bundle_id in (SHIPPED_BUNDLE, EVICTED_BUNDLE, KEPT_BUNDLE):
        collector.submit(make_action(bundle_id=bundle_id))
    collector.drain()
    collector.run()
    if collector.statistics().collected != 3:
        raise RuntimeError(collector.statistics().last_failure)


def _leave_draft(root: Path) -> None:
    """Die when all is collected and packed, and nothing published: it must become a bundle."""
    collector = _new_collector(_DyingSpool(root))
    collector.submit(make_action(actions=("greeting", "version"), bundle_id=DRAFT))
    collector.drain()
    collector.run()


class _DyingSpool(Spool):
    def publish(self, bundle_id: str, archive: Path, manifest: Manifest) -> SpooledBundle:
        os._exit(0)


class _OneThreadLoop(asyncio.SelectorEventLoop):
    """Runs in place what is meant for another thread, so that all calls have one order."""

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> asyncio.Future[Any]:
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future


class _OneThreadPolicy(asyncio.DefaultEventLoopPolicy):
    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        return _OneThreadLoop()


@contextmanager
def one_thread() -> Iterator[None]:
    """Event loops do all their work in the thread that runs them."""
    asyncio.set_event_loop_policy(_OneThreadPolicy())
    logging.disable()
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
        asyncio.set_event_loop_policy(None)


MADE = frozenset({ABSENT, PENDING})
AGENT = Victim(
    "agent",
    seed_used_spool,
    collect_and_evict,
    {
        SHIPPED_BUNDLE: frozenset({DELIVERED}),
        EVICTED_BUNDLE: frozenset({PENDING, EVICTED}),
        KEPT_BUNDLE: frozenset({PENDING}),
        DRAFT: frozenset({PENDING}),
        FIRST: MADE,
        SECOND: MADE,
    },
    broken_after_restart,
)
FIRST_START = Victim(
    "first_start",
    seed_nothing,
    collect_first,
    {FIRST: MADE, SECOND: MADE},
    broken_after_restart,
)
