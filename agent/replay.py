"""Replays a recorded trace through the agent's own pipeline."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from agent.configuration.schema import AuditConfig, Config
from agent.controller import Controller
from agent.events.trace import Trace, read_trace
from agent.events.trace_source import TraceSource
from agent.kernel.kernel_filter import kernel_settings
from agent.service.stop_signal import StopSignal
from agent.storage.spool import Manifest


@dataclass(frozen=True)
class ReplayResult:
    """What a replay saw. ``manifests`` are those of the bundles it made, oldest first."""

    commands: int
    duration_ns: int
    lost: int
    reported: int
    incidents: int
    suppressed: int
    failed_collections: int
    refused: int
    manifests: tuple[Manifest, ...]


def replay_trace(
    trace_path: Path, config: Config, output: Path, speed: float, interrupt: StopSignal
) -> ReplayResult:
    """`replay` of a file. Raises `agent.events.trace.TraceError` too."""
    return replay(read_trace(trace_path), config, output, speed, interrupt)


def replay(
    trace: Trace, config: Config, output: Path, speed: float, interrupt: StopSignal
) -> ReplayResult:
    """Run ``trace`` through detection and collection; bundles land in the spool ``output``.

    Every incident gets its bundle, all actions run to their end, unless ``interrupt`` is set: then
    the rest is left out, and the bundles there are by then are whole.

    Raises OSError or `agent.controller.AlreadyRunningError`.
    """
    settings = kernel_settings(config.guardian.anomalies.values())
    source = TraceSource(trace, settings, speed, interrupt)
    controller = Controller(
        # What is replayed is no anomaly of this host: it stays out of the journal.
        replace(
            config,
            aod_output_dir=output,
            audit=AuditConfig(enabled=False),
            collection=replace(config.collection, after_sec=0),
        ),
        open_source=lambda stop: source,
        source_state=lambda: {"state": "replay"},
        runtime_directory=None,
        replay=True,
    )
    controller.spool.prepare()
    before = {bundle.id for bundle in controller.spool.finished()}
    controller.start()
    try:
        controller.drain(interrupt)
    finally:
        controller.shutdown()
    collections = controller.collector.statistics()
    made = [bundle for bundle in controller.spool.finished() if bundle.id not in before]
    return ReplayResult(
        commands=len(trace.events),
        duration_ns=trace.duration_ns,
        lost=trace.lost,
        reported=controller.watcher.position,
        incidents=controller.watcher.incidents.opened,
        suppressed=controller.watcher.incidents.suppressed,
        failed_collections=collections.failed,
        refused=collections.refused,
        manifests=tuple(bundle.manifest() for bundle in made),
    )
