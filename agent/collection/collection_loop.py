"""The event loop of the LogCollector: several collections at once, each to its end."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from agent.collection.action_runner import ActionRunner
from agent.collection.bundle import BundleWriter
from agent.collection.bundle_cleaner import BundleCleaner
from agent.collection.bundle_sealer import BundleSealer
from agent.collection.collection_tally import CollectionTally
from agent.collection.mailbox import Mailbox
from agent.collection.manifest import Collected
from agent.collection.scene import Scene
from agent.collection.subprocesses import Halt
from agent.collection.surroundings import Surroundings
from agent.configuration.schema import CollectionConfig
from agent.detection.anomaly import AnomalyAction
from agent.service.audit import Audit
from agent.storage.free_space import MEGABYTE
from agent.storage.spool import Spool, SpooledBundle

log = logging.getLogger("aod.collector")

# What a stop leaves to the actions that run, before they are asked to end.
STOP_GRACE_SEC = 5.0


class CollectionLoop:
    """Serves a mailbox until it is closed and empty; at most ``max_concurrent`` orders at once, as
    ``config`` says at that time.

    When the mailbox asks for hurry, all that waits is published at once, without its actions.
    """

    def __init__(
        self,
        mailbox: Mailbox,
        collection: Collection,
        tally: CollectionTally,
        config: Callable[[], CollectionConfig],
    ) -> None:
        self._mailbox = mailbox
        self._collection = collection
        self._tally = tally
        self._config = config
        self._running: dict[asyncio.Task[None], AnomalyAction] = {}

    def run(self) -> None:
        """Body of the thread. Children die with this thread, so it outlives them."""
        asyncio.run(self._run())

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        # Packing is done by one thread, so that a burst of incidents takes one core at most.
        loop.set_default_executor(ThreadPoolExecutor(1, thread_name_prefix="aod-pack"))
        arrival = asyncio.Event()
        self._mailbox.wake_by(partial(loop.call_soon_threadsafe, arrival.set))
        try:
            await self._serve(loop, arrival)
        finally:
            self._mailbox.wake_by(None)
            self._collection.close()

    async def _serve(self, loop: asyncio.AbstractEventLoop, arrival: asyncio.Event) -> None:
        halt, hurry = loop.create_future(), loop.create_future()
        ended = False
        while self._running or not ended:
            await arrival.wait()
            arrival.clear()
            waiting, free = len(self._mailbox), self._config().max_concurrent - self._incidents
            delivery = self._mailbox.take(waiting if hurry.done() else free)
            if delivery.hurry and not hurry.done():
                hurry.set_result(None)
                loop.call_later(STOP_GRACE_SEC, halt.set_result, None)
                arrival.set()
            for answer in delivery.pings:
                answer()
            self._begin(delivery.orders, hurry if hurry.done() else halt, arrival)
            ended = delivery.ended

    def _begin(self, orders: list[AnomalyAction], halt: Halt, arrival: asyncio.Event) -> None:
        for order in orders:
            task = asyncio.create_task(self._collect_counted(order, halt))
            self._running[task] = order
            task.add_done_callback(self._running.pop)
            task.add_done_callback(lambda _: arrival.set())

    @property
    def _incidents(self) -> int:
        """Orders of detection that run: those of people take as long as these like."""
        return sum(order.length_sec is None for order in self._running.values())

    async def _collect_counted(self, order: AnomalyAction, halt: Halt) -> None:
        self._tally.started()
        try:
            bundle = await self._collection.collect(order, halt)
        except BaseException as fault:
            self._tally.failed(order, fault)
            if not isinstance(fault, Exception):
                raise
            log.error("collection for %s failed: %s", order.anomaly.name, fault)
            return
        self._tally.published(order, bundle)


class Collection:
    """How one order becomes one bundle, within the limits that ``config`` gives at its start."""

    def __init__(
        self,
        spool: Spool,
        config: Callable[[], CollectionConfig],
        audit: Audit,
        surroundings: Surroundings,
    ) -> None:
        self._spool = spool
        self._audit = audit
        self._surroundings = surroundings
        places = surroundings
        cleaner = BundleCleaner(places.roots, places.host.name, places.pseudonym_map)
        self._writer = BundleWriter(spool, surroundings.host, BundleSealer(spool, cleaner))
        self._config = config
        # Beside the packing of others, which may take seconds.
        self._drafting = ThreadPoolExecutor(1, thread_name_prefix="aod-draft")
        self._under_way = 0

    def close(self) -> None:
        """No more is collected."""
        self._drafting.shutdown(wait=False)

    async def collect(self, order: AnomalyAction, halt: Halt) -> SpooledBundle:
        """Run the order's actions, until ``halt`` is done, and publish the bundle.

        A vanished spool is made anew, once.
        """
        try:
            return await self._collect_once(order, halt)
        except FileNotFoundError as error:
            if self._spool.is_there():
                raise
            self._spool.prepare()
            self._audit.record("spool_recreated", f"The spool had vanished: {error}")
            return await self._collect_once(order, halt)

    async def _collect_once(self, order: AnomalyAction, halt: Halt) -> SpooledBundle:
        config = self._config()
        self._under_way += 1
        try:
            return await self._collect_with_room(order, config, halt)
        finally:
            self._under_way -= 1

    async def _collect_with_room(
        self, order: AnomalyAction, config: CollectionConfig, halt: Halt
    ) -> SpooledBundle:
        each = int(config.max_bundle_mb * MEGABYTE)
        self._surroundings.room_for_bundle(self._under_way * each)
        staging = self._writer.open_staging(order)
        try:
            collected = await self._collect_into(staging, order, config, halt)
            return await asyncio.to_thread(self._writer.publish, order, collected, config)
        finally:
            await asyncio.to_thread(self._writer.discard_staging, order)

    async def _collect_into(
        self, staging: Path, order: AnomalyAction, config: CollectionConfig, halt: Halt
    ) -> Collected:
        """The actions' results; meanwhile the evidence of the trigger is made safe."""
        wanted = order.anomaly.actions
        actions = [action for action in self._surroundings.actions if action.name in wanted]
        length_sec = config.after_sec if order.length_sec is None else order.length_sec
        scene = Scene.of_order(order, self._surroundings.roots)
        runner = ActionRunner(scene, staging, config, halt)
        started_ns, first_ns = time.time_ns(), time.monotonic_ns()
        draft = asyncio.get_running_loop().run_in_executor(
            self._drafting, self._writer.draft, order, actions
        )
        try:
            results = await runner.run(actions, length_sec)
        finally:
            # Not to be left alone: it would write into a directory that is being discarded. Without
            # it the bundle can still be made, but not by the next start.
            try:
                await draft
            except OSError as error:
                log.warning("no draft of %s: %s", order.id, error)
        ended_ns = time.monotonic_ns()
        return Collected(results, started_ns, first_ns, ended_ns, runner.worked_sec)
