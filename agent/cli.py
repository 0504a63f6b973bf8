"""The command ``aod-agent``."""

from __future__ import annotations

import argparse
import logging
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

from agent import __version__
from agent.commands import (
    EXIT_NOT_RUNNING,
    EXIT_USAGE,
    capture_command,
    check_config,
    metrics_command,
    order_command,
    record_command,
    replay_command,
    run_agent,
    status_command,
)
from agent.configuration.settings_reader import ConfigError
from agent.service.status_server import NotRunningError

DEFAULT_CONFIG = Path("/etc/aod/config.yaml")

Subparsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

DESCRIPTION = """\
Watches the kernel's SMB client through eBPF, notices when a mount gets slow or fails,
and collects the evidence of that moment into one tar.zst bundle."""

EXAMPLES = """\
examples:
  aod-agent check-config /etc/aod/config.yaml   every mistake in the file, with line and cure
  aod-agent run                                 watch this host (as root; see aod-agent.service)
  aod-agent status                              what the running agent sees
  aod-agent metrics                             the same for Prometheus (docs/metrics.md)
  aod-agent reload                              take the changed configuration, without a gap
  aod-agent detach                              let go of cifs.ko, so that it can be unloaded
  aod-agent capture --duration 10               a bundle of now, without waiting for an anomaly
  aod-agent record trace.zst --duration 60      a minute of SMB traffic, timings only
  aod-agent replay trace.zst                    what the agent would have made of it

exit status: 0 fine, 1 failed, 2 wrong usage or configuration, 3 no agent is running"""


ORDERS = {
    "reload": (
        "have the running agent take its configuration file anew",
        "Thresholds change in the kernel's memory: nothing is attached anew, no event is missed, "
        "and a rule that stays the same keeps its counts. A bad file leaves the old configuration "
        "running and ends with exit status 2. SIGHUP does the same.",
    ),
    "detach": (
        "have the running agent let go of the cifs module",
        "While probes are attached, rmmod cifs says that the module is in use. After this nothing "
        "is watched until the module was unloaded and loaded again, or until 'aod-agent attach'.",
    ),
    "attach": (
        "have a detached agent watch again",
        "Ends what 'aod-agent detach' began, without the module having been loaded anew.",
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    options = build_parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
    command: Callable[[argparse.Namespace], int] = options.command
    try:
        return command(options)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return EXIT_USAGE
    except NotRunningError as error:
        print(f"aod-agent: {error}", file=sys.stderr)
        return EXIT_NOT_RUNNING


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = argparse.ArgumentParser(
        prog="aod-agent",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"aod-agent {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    run = commands.add_parser("run", help="watch this host until told to stop")
    _add_config(run)
    run.set_defaults(command=run_agent)

    check = commands.add_parser("check-config", help="check a configuration file")
    check.add_argument("file", type=Path, metavar="F", help="the file to check")
    check.set_defaults(command=check_config)

    replay = commands.add_parser(
        "replay",
        help="run a recorded trace through the same pipeline",
        description="Runs a recorded trace through detection and collection, as if it happened "
        "now. Bundles land in OUTPUT; the running agent is not touched.",
    )
    replay.add_argument("trace", type=Path, metavar="TRACE", help="made by 'aod-agent record'")
    replay.add_argument(
        "--speed",
        type=_speed,
        default=0.0,
        metavar="N",
        help="times real time; 0, the default: as fast as possible",
    )
    replay.add_argument(
        "--output",
        type=Path,
        default=Path("aod-replay"),
        metavar="DIR",
        help="spool for the bundles (default: %(default)s)",
    )
    _add_config(replay)
    _add_json(replay)
    replay.set_defaults(command=replay_command)

    record = commands.add_parser(
        "record",
        help="record every SMB command of this host into a trace",
        description="Records command, timing, result, process id and task name of every SMB "
        "command; no file names and no data. Ends with Ctrl+C or after --duration.",
    )
    record.add_argument("out", type=Path, metavar="OUT", help="the trace to write")
    record.add_argument(
        "--duration", type=float, metavar="S", help="seconds to record (default: until Ctrl+C)"
    )
    _add_json(record)
    record.set_defaults(command=record_command)

    _add_capture(commands)

    status = commands.add_parser(
        "status",
        help="what the running agent sees",
        description="Prints what the running agent sees, and what became of it. With --wait, tells "
        "whether the agent is healthy: it answers, and it watches, or has nothing to watch yet.",
    )
    status.add_argument(
        "--wait",
        type=_seconds,
        metavar="SEC",
        help="wait up to SEC seconds until it is healthy; exit status 1, with the reason, if not",
    )
    _add_runtime_dir(status)
    _add_json(status)
    status.set_defaults(command=status_command)

    metrics = commands.add_parser(
        "metrics",
        help="the status as Prometheus metrics",
        description="Prints the status in Prometheus' text format, for node_exporter's textfile "
        "collector. Without a running agent it is aod_agent_up 0, and the exit status 3.",
    )
    metrics.add_argument(
        "--output",
        type=Path,
        metavar="F",
        help="a file to replace as a whole, instead of printing",
    )
    _add_runtime_dir(metrics)
    metrics.set_defaults(command=metrics_command)

    for name, (summary, description) in ORDERS.items():
        order = commands.add_parser(name, help=summary, description=description)
        _add_runtime_dir(order)
        _add_json(order)
        order.set_defaults(command=order_command, order=name)
    return parser


def _add_capture(commands: Subparsers) -> None:
    capture = commands.add_parser(
        "capture",
        help="make a bundle of now, without waiting for an anomaly",
        description="Collects what an anomaly would collect, and prints where the bundle lies. "
        "The running agent does it, which goes on watching; where none runs, this command is the "
        "agent for that time (as root). Ctrl+C then ends it early, with what there is.",
        epilog='example: aod-agent capture --target-pid 4711 --duration 30 --label "slow upload"',
    )
    capture.add_argument(
        "--target-pid",
        type=int,
        default=None,
        metavar="P",
        help="look at this process too: its stacks, its files, its CPU and I/O",
    )
    capture.add_argument(
        "--duration",
        type=float,
        default=5.0,
        metavar="S",
        help="seconds to watch (default: %(default)g)",
    )
    capture.add_argument(
        "--label", default="", metavar="TEXT", help="a note for whoever reads the bundle"
    )
    _add_config(capture)
    _add_runtime_dir(capture)
    _add_json(capture)
    capture.set_defaults(command=capture_command)


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config",
        type=Path,
        default=DEFAULT_CONFIG,
        metavar="F",
        help="configuration file (default: %(default)s)",
    )


def _add_runtime_dir(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--runtime-dir",
        type=Path,
        default=None,
        metavar="DIR",
        help="where the agent's socket lies (default: /run/aod)",
    )


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON for machines")


def _seconds(text: str) -> float:
    return _number(text, "is no number of seconds, such as 30")


def _speed(text: str) -> float:
    return _number(text, "is no speed; 1 is real time, 10 ten times as fast, 0 as fast as possible")


def _number(text: str, complaint: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} {complaint}")
    return value


if __name__ == "__main__":
    sys.exit(main())
