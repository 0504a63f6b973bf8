"""What a running agent can be told: another configuration, to let go of the kernel module."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

from agent.configuration.schema import Config
from agent.configuration.settings_reader import ConfigError
from agent.controller import Controller
from agent.detection.on_demand import CaptureRequest
from agent.kernel.probe_opener import ProbeOpener
from agent.service.status_server import Arguments, Order

log = logging.getLogger("aod.orders")

Answer = dict[str, Any]

# Closing the probes takes a moment, while the kernel waits for those that run.
DETACH_SEC = 20.0
NEEDS_RESTART = frozenset({"aod_output_dir", "watcher.flight_recorder_events"})


class LiveOrders:
    """The orders, by name in `by_name`; each returns an answer with a key ``error`` if it failed.

    ``load`` reads the configuration file and raises `ConfigError`. From any thread.
    """

    def __init__(
        self,
        config: Config,
        load: Callable[[], Config],
        controller: Controller,
        opener: ProbeOpener,
    ) -> None:
        self._config = config
        self._load = load
        self._controller = controller
        self._opener = opener
        self._lock = threading.Lock()

    @property
    def by_name(self) -> dict[str, Order]:
        """For the status socket."""
        return {
            "reload": lambda _: self.reload(),
            "detach": lambda _: self.detach(),
            "attach": lambda _: self.attach(),
            "capture": self.capture,
            "capture-state": lambda arguments: self._controller.capture_state(arguments["id"]),
        }

    def reload(self) -> Answer:
        """Take the configuration file as it is now; a bad one leaves the old one running."""
        controller = self._controller
        with self._lock:
            try:
                config = self._load()
            except ConfigError as error:
                message = f"the configuration is refused, the old one stays: {error}"
                log.error("%s", message)
                controller.audit.record("config_refused", message)
                return {"error": message, "faults": [str(fault) for fault in error.faults]}
            changed = changed_settings(self._config, config)
            waiting = [name for name in changed if name in NEEDS_RESTART]
            controller.reconfigure(config)
            self._config = as_running(self._config, config)
            controller.audit.record(
                "config", f"configuration loaded anew: {', '.join(changed) or 'nothing changed'}"
            )
            return {"changed": changed, "needs_restart": waiting}

    def detach(self) -> Answer:
        """Let go of the cifs module, so that it can be unloaded; watch again when it is loaded."""
        if self._opener.let_go():
            self._controller.dispatcher.detach()
        deadline = time.monotonic() + DETACH_SEC
        while self._controller.dispatcher.dispatching or self._opener.state["state"] == "loading":
            if time.monotonic() > deadline:
                return {"error": f"the probes are still attached after {DETACH_SEC:g} s"}
            time.sleep(0.01)
        self._controller.audit.record("detach", "the probes are detached: nothing is watched")
        return {"state": "detached"}

    def attach(self) -> Answer:
        """Watch again now."""
        if not self._opener.attach():
            return {"error": "the agent is not detached"}
        self._controller.audit.record("attach", "the probes are to be attached again")
        return {"state": "attaching"}

    def capture(self, arguments: Arguments) -> Answer:
        """Begin a capture; ask for the state of its id from then on."""
        try:
            return self._controller.capture(CaptureRequest.of(arguments))
        except ValueError as error:
            return {"error": str(error), "state": "refused"}


def as_running(old: Config, new: Config) -> Config:
    """``new``, but for what only a restart changes: that stays as in ``old``."""
    events = old.watcher.flight_recorder_events
    watcher = replace(new.watcher, flight_recorder_events=events)
    return replace(new, aod_output_dir=old.aod_output_dir, watcher=watcher)


def changed_settings(old: Config, new: Config) -> list[str]:
    """Dotted names of what differs; of rules, ``guardian.anomalies.<name>``."""
    changed = []
    for field in fields(Config):
        before, after = getattr(old, field.name), getattr(new, field.name)
        if before == after:
            continue
        if field.name == "guardian":
            names = sorted({*before.anomalies, *after.anomalies})
            changed += [
                f"guardian.anomalies.{name}"
                for name in names
                if before.anomalies.get(name) != after.anomalies.get(name)
            ]
        elif hasattr(before, "__dataclass_fields__"):
            changed += [
                f"{field.name}.{part.name}"
                for part in fields(before)
                if getattr(before, part.name) != getattr(after, part.name)
            ]
        else:
            changed.append(field.name)
    return changed
