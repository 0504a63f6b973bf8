"""What the subcommands of ``aod-agent`` do; each returns its exit status."""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
from dataclasses import asdict
from pathlib import Path

from agent.config_loader import load_config
from agent.configuration.schema import Config
from agent.service.status_server import (
    NotRunningError,
    give_order,
    query_status,
    runtime_directory,
)
from agent.service.stop_signal import StopSignal

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_NOT_RUNNING = 3

# node_exporter, another user, reads them.
METRICS_MODE = 0o644


def run_agent(options: argparse.Namespace) -> int:
    """``aod-agent run``."""
    import threading

    from agent.controller import AlreadyRunningError, Controller
    from agent.kernel.kernel_filter import kernel_settings
    from agent.kernel.probe_opener import ProbeOpener
    from agent.live_orders import LiveOrders
    from agent.service.signal_thread import obey_signals

    config = _load(options.config)
    opener = ProbeOpener(kernel_settings(config.guardian.anomalies.values()))
    controller = Controller(config, opener, lambda: opener.state, runtime_directory())
    orders = LiveOrders(config, lambda: load_config(options.config).config, controller, opener)
    controller.obey(orders.by_name)
    obey_signals(
        {
            signal.SIGTERM: controller.stop.set,
            signal.SIGINT: controller.stop.set,
            # It may hang on a sick disk, and the others must not.
            signal.SIGHUP: lambda: threading.Thread(target=orders.reload).start(),
        }
    )
    try:
        controller.start()
    except (OSError, AlreadyRunningError) as error:
        print(f"aod-agent: cannot start: {error}", file=sys.stderr)
        return EXIT_FAILED
    controller.audit.record("config", f"configuration loaded from {options.config}")
    controller.wait()
    if controller.shutdown():
        return EXIT_OK
    # At its end the interpreter would wait for a thread that hangs, perhaps on a dead disk.
    os._exit(EXIT_FAILED)


def check_config(options: argparse.Namespace) -> int:
    """``aod-agent check-config``."""
    config = _load(options.file)
    rules = ", ".join(config.guardian.anomalies)
    print(f"{options.file}: fine ({len(config.guardian.anomalies)} rules: {rules})")
    return EXIT_OK


def replay_command(options: argparse.Namespace) -> int:
    """``aod-agent replay``."""
    from agent.controller import AlreadyRunningError
    from agent.events.trace import TraceError
    from agent.replay import replay_trace
    from agent.report import replay_text

    config, output = _load(options.config), options.output.absolute()
    stop = StopSignal()
    _stop_on_signals(stop)
    try:
        result = replay_trace(options.trace, config, output, options.speed, stop)
    except (OSError, TraceError, AlreadyRunningError) as error:
        print(f"aod-agent: {error}", file=sys.stderr)
        return EXIT_FAILED
    if stop.is_set():
        made = len(result.manifests)
        print(f"aod-agent: stopped; bundles made until then: {made}, in {output}", file=sys.stderr)
        return EXIT_FAILED
    print(json.dumps(asdict(result), indent=2) if options.json else replay_text(result))
    return EXIT_FAILED if result.failed_collections or result.refused else EXIT_OK


def record_command(options: argparse.Namespace) -> int:
    """``aod-agent record``."""
    import threading

    from agent.events.recording import Recording
    from agent.kernel.probe import ProbeFault, load_probe
    from agent.report import Progress

    stop = StopSignal()
    _stop_on_signals(stop)
    try:
        probe = load_probe()
    except ProbeFault as fault:
        print(f"aod-agent: {fault.message}\n  {fault.remedy}", file=sys.stderr)
        return EXIT_FAILED
    print("recording every SMB command of this host; Ctrl+C ends it", file=sys.stderr)
    if options.duration is not None:
        timer = threading.Timer(options.duration, stop.set)
        timer.daemon = True
        timer.start()
    try:
        recording = Recording(probe, Progress("commands").update)
        events = recording.run(options.out, stop)
    except OSError as error:
        print(f"aod-agent: {error}", file=sys.stderr)
        return EXIT_FAILED
    result = {"trace": str(options.out), "events": events, "lost": recording.lost}
    print(
        json.dumps(result)
        if options.json
        else f"{options.out}: {events} commands recorded, {recording.lost} lost"
    )
    return EXIT_OK


def capture_command(options: argparse.Namespace) -> int:
    """``aod-agent capture``."""
    from agent.capture import CaptureFailedError, capture_alone, capture_by_agent
    from agent.controller import AlreadyRunningError
    from agent.detection.on_demand import CaptureRequest
    from agent.report import CaptureProgress, capture_text

    try:
        request = CaptureRequest.of(
            {
                "duration_sec": options.duration,
                "target_pid": options.target_pid,
                "label": options.label,
            }
        )
    except ValueError as error:
        print(f"aod-agent: {error}", file=sys.stderr)
        return EXIT_USAGE
    logging.getLogger("aod").setLevel(logging.WARNING)
    progress = CaptureProgress(request.duration_sec)
    try:
        state = capture_by_agent(options.runtime_dir or runtime_directory(), request, progress.show)
    except NotRunningError:
        config = _load(options.config)
        try:
            state = capture_alone(config, request, progress.show)
        except (OSError, AlreadyRunningError, CaptureFailedError) as error:
            return _capture_failed(error)
    except CaptureFailedError as error:
        return _capture_failed(error)
    except KeyboardInterrupt:
        print("\naod-agent: the running agent goes on with the capture", file=sys.stderr)
        return EXIT_FAILED
    progress.end()
    print(json.dumps(state, indent=2) if options.json else capture_text(state))
    return EXIT_OK


def _capture_failed(error: Exception) -> int:
    print(f"aod-agent: no bundle: {error}", file=sys.stderr)
    return EXIT_FAILED


def status_command(options: argparse.Namespace) -> int:
    """``aod-agent status``."""
    from agent.health import NotHealthyError, wait_until_healthy
    from agent.report import status_text

    directory = options.runtime_dir or runtime_directory()
    if options.wait is None:
        status = query_status(directory)
    else:
        try:
            status = wait_until_healthy(directory, options.wait)
        except NotHealthyError as error:
            print(f"aod-agent: {error}", file=sys.stderr)
            return EXIT_FAILED
    print(json.dumps(status, indent=2) if options.json else status_text(status))
    return EXIT_OK


def metrics_command(options: argparse.Namespace) -> int:
    """``aod-agent metrics``; an agent that does not run is a metric too."""
    from agent.metrics import metrics_text
    from agent.storage.durable_file import publish_bytes

    try:
        status = query_status(options.runtime_dir or runtime_directory())
    except NotRunningError as error:
        print(f"aod-agent: {error}", file=sys.stderr)
        status = None
    text = metrics_text(status)
    if options.output is None:
        print(text, end="")
    else:
        try:
            publish_bytes(options.output, text.encode(), METRICS_MODE)
        except OSError as error:
            print(f"aod-agent: {error}", file=sys.stderr)
            return EXIT_FAILED
    return EXIT_NOT_RUNNING if status is None else EXIT_OK


def order_command(options: argparse.Namespace) -> int:
    """``aod-agent reload``, ``detach`` and ``attach``."""
    from agent.report import order_text

    answer = give_order(options.runtime_dir or runtime_directory(), options.order)
    if options.json:
        print(json.dumps(answer, indent=2))
    elif "error" in answer:
        print(f"aod-agent: {answer['error']}", file=sys.stderr)
    else:
        print(order_text(options.order, answer))
    if "error" not in answer:
        return EXIT_OK
    return EXIT_USAGE if "faults" in answer else EXIT_FAILED


def _load(path: Path) -> Config:
    loaded = load_config(path)
    for warning in loaded.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    return loaded.config


def _stop_on_signals(stop: StopSignal) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
