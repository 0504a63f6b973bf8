"""Follows the flight recorder with the detectors and orders collections."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from agent.cifs.state import CifsState, CifsTexts, state_of
from agent.configuration.schema import Config
from agent.detection.anomaly import AnomalyAction
from agent.detection.anomaly_handler import AnomalyHandler, Finding
from agent.detection.event_batch import EventBatch
from agent.detection.evidence_keeper import EvidenceKeeper
from agent.detection.incidents import BundleOrder, IncidentLimits, IncidentTracker
from agent.detection.look_schedule import LookSchedule, Sense
from agent.detection.scene import Scene
from agent.detection.server_directory import ServerDirectory
from agent.events.flight_recorder import FlightRecorder
from agent.service.audit import Audit

NANOSECONDS = 1_000_000_000

Handler = AnomalyHandler[Any]


class WatchedSource(Sense, Protocol):
    """What the watcher asks of the source of events."""

    sources_opened: int

    def clock_ns(self) -> int | None:
        """Now, in the time of the events; None: the events alone tell the time."""

    def end_ns(self) -> int | None:
        """When everything had happened, for a source without a clock."""

    def cifs_texts(self, at_ns: int) -> CifsTexts:
        """What the kernel says about its servers."""


class AnomalyWatcher:
    """Runs every event past every rule, once, and looks at the kernel's memory when that is due; a
    new incident becomes an `AnomalyAction`.

    ``collect`` takes the order without blocking; False: it could not. A restart of `run` goes on
    where the last one ended. All but `run` may be called from any thread.
    """

    def __init__(
        self,
        config: Config,
        recorder: FlightRecorder,
        source: WatchedSource,
        collect: Callable[[AnomalyAction], bool],
        audit: Audit,
    ) -> None:
        self._recorder = recorder
        self._source = source
        self._collect = collect
        self._audit = audit
        self.incidents = IncidentTracker(incident_limits(config))
        self._servers = ServerDirectory(self._read_state)
        self._looks = LookSchedule(source, self._read_state)
        self._evidence = EvidenceKeeper(recorder, source)
        self._handlers: Sequence[Handler] = ()
        self._config = config
        self._news = deque([config], maxlen=1)
        self._sources_seen = 0
        self.position = 0
        self.beats = 0

    def run(self) -> None:
        """Follow the recorder until it is closed and everything in it was seen."""
        while True:
            end = self._recorder.wait_beyond(self.position, self._patience_sec())
            self.beats += 1
            self._take_news()
            while self.position < end:
                events = self._recorder.view(self.position, end)
                self.position += len(events)
                try:
                    self._follow(events)
                finally:
                    self._recorder.release(self.position)
            if self._recorder.closed and self.position == self._recorder.appended:
                self._catch_up(self._source.end_ns())
                return
            self._catch_up(self._source.clock_ns())

    def ping(self) -> None:
        """Make the loop come round, which `beats` then shows."""
        self._recorder.poke()

    def reconfigure(self, config: Config) -> None:
        """Go by ``config`` from the next round on; a rule that stays the same keeps its counts."""
        self._news.append(config)
        self._recorder.poke()

    def _take_news(self) -> None:
        """A new configuration, a new source: what was planned for the old ones is void."""
        config = self._news.popleft() if self._news else None
        opened = self._source.sources_opened
        if config is not None:
            self._handlers = load_handlers(config, self._handlers)
            self._config = config
            self.incidents.limits = incident_limits(config)
            self._looks.hold_ns = self.incidents.limits.quiet_ns // 2
        if config is not None or opened != self._sources_seen:
            self._looks.serve(self._handlers if opened else ())
            if opened != self._sources_seen:
                self._servers.refresh(self._source.clock_ns() or 0)
            self._sources_seen = opened

    def _patience_sec(self) -> float | None:
        """How long to sleep without an event: not at all, or for ever while nothing is due."""
        now_ns = self._source.clock_ns()
        due = [at for at in (self._looks.due_ns, self.incidents.next_end_ns()) if at is not None]
        if now_ns is None or not due:
            return None
        return max(0.0, (min(due) - now_ns) / NANOSECONDS)

    def _follow(self, events: NDArray[np.void]) -> None:
        """Examine ``events``, with the looks and the ends of incidents that were due between."""
        quiet_ns, window_ns = self.incidents.limits.quiet_ns, self._window_ns()
        for batch in in_windows(events, quiet_ns, window_ns):
            rest = batch
            while len(rest):
                count = self._before_next_look(rest)
                if count:
                    self._examine(rest[:count])
                else:
                    self._look()
                rest = rest[count:]

    def _before_next_look(self, events: NDArray[np.void]) -> int:
        due_ns, times = self._looks.due_ns, events["cmd_end_time_ns"]
        if due_ns is None or int(times[-1]) < due_ns:
            return len(events)
        later = times >= max(0, due_ns)
        first = int(np.argmax(later))
        return first if later[first] else len(events)

    def _examine(self, events: NDArray[np.void]) -> None:
        batch = EventBatch.of(events)
        self._note_ends(int(events["cmd_end_time_ns"][0]))
        for handler in self._handlers:
            for finding in handler.detect(batch):
                self._take(handler, finding)

    def _catch_up(self, now_ns: int | None) -> None:
        """The looks and the ends that are due without an event."""
        if now_ns is None:
            return
        self._looks.notice_bell(now_ns)
        while self._looks.due_ns is not None and self._looks.due_ns <= now_ns:
            self._look()
        self._note_ends(now_ns)

    def _look(self) -> None:
        due_ns = self._looks.due_ns or 0
        time_ns = max(due_ns, self._source.clock_ns() or 0)
        self._note_ends(due_ns)
        sight, found = self._looks.look(time_ns)
        self._evidence.note(sight)
        for handler, finding in found:
            self._take(handler, finding)

    def _note_ends(self, now_ns: int) -> None:
        for incident in self.incidents.end_quiet(now_ns):
            seconds = (incident.last_ns - incident.opened_ns) / NANOSECONDS
            self._audit.record(
                "incident_end",
                f"Incident at {incident.cause or 'this host'} is over after {seconds:.0f} s, "
                f"{incident.triggers} triggers, {len(incident.bundles)} bundles",
                incident=incident.id,
                rules=",".join(incident.rules),
            )

    def _take(self, handler: Handler, finding: Finding) -> None:
        time_ns = finding.time_ns
        state = self._servers.state_with(finding.session_id, time_ns)
        scene = self._evidence.scene(
            self.position, time_ns, state, lambda: self._servers.refresh(time_ns)
        )
        if not handler.stands(finding, scene):
            return
        server = handler.server(finding, scene)
        order = self.incidents.take(server, handler.rule.name, time_ns)
        if order is not None:
            self._order(handler, finding, scene, order)

    def _order(self, handler: Handler, finding: Finding, scene: Scene, order: BundleOrder) -> None:
        try:
            action = self._action(handler, finding, scene, order)
            self._record(action)
            accepted = self._collect(action)
        except BaseException:
            self.incidents.collection_failed(order.bundle_id)
            raise
        if not accepted:
            self.incidents.collection_failed(order.bundle_id)

    def _action(
        self, handler: Handler, finding: Finding, scene: Scene, order: BundleOrder
    ) -> AnomalyAction:
        trigger = handler.describe(finding, scene)
        return AnomalyAction(
            id=order.bundle_id,
            wall_ns=time.time_ns(),
            anomaly=handler.rule,
            trigger=trigger,
            evidence=self._evidence.of(scene, finding.time_ns - handler.window_ns),
            incident=order,
            aftermath=self._evidence.aftermath(self.position),
            live=self._source.clock_ns() is not None,
        )

    def _record(self, action: AnomalyAction) -> None:
        name = action.anomaly.name
        message = f"{name}: {action.trigger.reason}"
        self._audit.record(
            "anomaly", message, anomaly=name, bundle=action.id, incident=action.incident.incident_id
        )

    def _read_state(self, at_ns: int) -> CifsState:
        return state_of(self._source.cifs_texts(at_ns))

    def _window_ns(self) -> int:
        return int(self._config.watch_interval_sec * NANOSECONDS)


def in_windows(
    events: NDArray[np.void], quiet_ns: int, window_ns: int
) -> Sequence[NDArray[np.void]]:
    """``events`` as they are if they can hold only one incident, else cut by ``window_ns``.

    A detector finds one anomaly in a batch; a batch of a fast replay, or of an agent that was held
    up, may span several incidents.
    """
    times = events["cmd_end_time_ns"]
    if int(times[-1]) - int(times[0]) <= quiet_ns:
        return [events]
    window = (times - times[0]) // np.uint64(max(1, window_ns))
    return np.split(events, np.flatnonzero(np.diff(window)) + 1)


def load_handlers(config: Config, known: Sequence[Handler] = ()) -> Sequence[Handler]:
    """One detector for each rule; of ``known`` ones those that would be made anew just as they
    are."""
    kept = {handler.rule.name: handler for handler in known}
    handlers = []
    for rule in config.guardian.anomalies.values():
        window_ns = int((rule.window_sec or config.watch_interval_sec) * NANOSECONDS)
        handler = kept.get(rule.name)
        if handler is None or (handler.rule, handler.window_ns) != (rule, window_ns):
            handler = cast(Handler, rule.detector(window_ns))
        handlers.append(handler)
    return handlers


def incident_limits(config: Config) -> IncidentLimits:
    """The watcher's settings for incidents, in nanoseconds."""
    watcher = config.watcher
    return IncidentLimits(
        quiet_ns=int(watcher.incident_quiet_sec * NANOSECONDS),
        followup_ns=int(watcher.incident_followup_sec * NANOSECONDS),
        max_followups=watcher.incident_max_followups,
    )
