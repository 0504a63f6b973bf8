"""The event loop of the LogCollector: several collections at once, each to its end."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from agent.collection.action_runner import run_actions
from agent.collection.bundle import BundleWriter, Collected
from agent.collection.collection_tally import CollectionTally
from agent.collection.mailbox import Mailbox
from agent.collection.quick_actions import Scene
from agent.collection.subprocesses import Limits
from agent.collection.surroundings import Surroundings
from agent.configuration.schema import CollectionConfig
from agent.detection.anomaly import AnomalyAction
from agent.service.audit import Audit
from agent.storage.spool import Spool, SpooledBundle

log = logging.getLogger("aod.collector")

Publication = Callable[[SpooledBundle], None]


class CollectionLoop:
    """Serves a mailbox until it is closed and empty; at most ``max_concurrent`` orders at once."""

    def __init__(
        self,
        mailbox: Mailbox,
        collection: Collection,
        tally: CollectionTally,
        max_concurrent: int,
        on_published: Publication,
    ) -> None:
        self._mailbox = mailbox
        self._collection = collection
        self._tally = tally
        self._max_concurrent = max_concurrent
        self._on_published = on_published

    def run(self) -> None:
        """Body of the thread. Children die with this thread, so it outlives them."""
        try:
            asyncio.run(self._serve())
        finally:
            self._mailbox.wake_by(None)

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        # Packing is done by one thread, so that a burst of incidents takes one core at most.
        loop.set_default_executor(ThreadPoolExecutor(1, thread_name_prefix="aod-pack"))
        arrival = asyncio.Event()
        self._mailbox.wake_by(partial(loop.call_soon_threadsafe, arrival.set))
        running: set[asyncio.Task[None]] = set()
        ended = False
        while running or not ended:
            await arrival.wait()
            arrival.clear()
            delivery = self._mailbox.take(self._max_concurrent - len(running))
            for answer in delivery.pings:
                answer()
            for order in delivery.orders:
                task = asyncio.create_task(self._collect_counted(order))
                running.add(task)
                task.add_done_callback(running.discard)
                task.add_done_callback(lambda _: arrival.set())
            ended = delivery.ended

    async def _collect_counted(self, order: AnomalyAction) -> None:
        self._tally.started()
        try:
            bundle = await self._collection.collect(order)
        except BaseException as fault:
            self._tally.failed(order, fault)
            if not isinstance(fault, Exception):
                raise
            log.error("collection for %s failed: %s", order.anomaly.name, fault)
            return
        self._tally.published(order, bundle)
        self._on_published(bundle)


class Collection:
    """How one order becomes one bundle."""

    def __init__(
        self, spool: Spool, config: CollectionConfig, audit: Audit, surroundings: Surroundings
    ) -> None:
        self._spool = spool
        self._audit = audit
        self._surroundings = surroundings
        self._writer = BundleWriter(spool, surroundings.host, config.compression_level)
        max_bytes = int(config.action_max_output_mb * (1 << 20))
        self._limits = Limits(config.action_timeout_sec, max_bytes)

    async def collect(self, order: AnomalyAction) -> SpooledBundle:
        """Run the order's actions and publish the bundle; a vanished spool is made anew, once."""
        try:
            return await self._collect_once(order)
        except FileNotFoundError as error:
            self._spool.prepare()
            self._audit.record("spool_recreated", f"The spool had vanished: {error}")
            return await self._collect_once(order)

    async def _collect_once(self, order: AnomalyAction) -> SpooledBundle:
        started_ns, started = time.time_ns(), time.monotonic()
        staging = self._writer.open_staging(order)
        try:
            wanted = order.anomaly.actions
            actions = [action for action in self._surroundings.actions if action.name in wanted]
            scene = Scene.of_trigger(order.wall_ns, self._surroundings.roots)
            results = await run_actions(actions, scene, staging, self._limits)
            collected = Collected(results, started_ns, time.monotonic() - started)
            return await asyncio.to_thread(self._writer.publish, order, collected)
        finally:
            await asyncio.to_thread(self._writer.discard_staging, order)
