"""``aod-shipper check``."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from agent.service.stop_signal import StopSignal
from shipper.commands.command import EXIT_LEFT_BEHIND, EXIT_OK, Command
from shipper.configuration.schema import ShipperConfig
from shipper.destinations.finding import Finding

_WORDS = {"ok": "ok", "warning": "warning", "failed": "FAILED"}


def run(config: ShipperConfig, options: argparse.Namespace) -> int:
    """Try out what a delivery needs."""
    from shipper.destinations.destination import open_destination

    destination = open_destination(config, StopSignal())
    findings: list[Finding] = []
    for finding in _findings(config, options.config, destination.check()):
        findings.append(finding)
        if not options.json:
            print(_line(finding), flush=True)
    ready = all(finding.state != "failed" for finding in findings)
    if options.json:
        document = {
            "destination": destination.description,
            "ready": ready,
            "findings": [asdict(finding) for finding in findings],
        }
        print(json.dumps(document, indent=2))
    else:
        print(f"{destination.description}: {'ready' if ready else 'NOT READY'}")
    return EXIT_OK if ready else EXIT_LEFT_BEHIND


def _findings(
    config: ShipperConfig, file: Path, of_destination: Iterator[Finding]
) -> Iterator[Finding]:
    from shipper.spools.spool_preflight import check_spools

    yield Finding("configuration", "ok", str(file))
    if os.geteuid() == 0:
        yield Finding(
            "user",
            "warning",
            "root may read and write what the service's user may not",
            "sudo -u aod-shipper aod-shipper check",
        )
    yield from check_spools(config)
    yield from of_destination


def _line(finding: Finding) -> str:
    line = f"{_WORDS[finding.state]:<8} {finding.step:<18} {finding.detail}"
    return f"{line}\n{'':<8} {'  remedy':<18} {finding.remedy}" if finding.remedy else line


COMMAND = Command(
    name="check",
    purpose="try out what a delivery needs, and tell what is missing",
    run=run,
    details="Goes the way of a bundle step by step: the spool, the credentials, the network, TLS, "
    "the clock, the right to put. It needs no right to read, leaves nothing behind that anybody "
    "sees, and may run beside the service. Each step that fails is told with its remedy. Exit "
    "status 1 when a bundle would not arrive.",
    examples=(
        ("aod-shipper check", "after setting up a host, before starting the service"),
        ("aod-shipper check --json", "for a playbook that goes on only when it is ready"),
        ("aod-shipper check --config F", "with a configuration that is not in use yet"),
    ),
)
