"""systemd's units, by systemctl."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Iterable

from ansible_collections.aod.fleet.plugins.module_utils.commands import CommandError, require, run

UNIT_DIRECTORY = Path("/etc/systemd/system")
_RUNNING = ("active", "reloading")
_JOURNAL_LINES = "20"


@dataclass(frozen=True)
class UnitState:
    """What systemd says of a unit; one that it does not know is neither enabled nor active.

    ``wanted``: it runs, or is being started, perhaps again and again.
    """

    enabled: bool
    active: bool
    wanted: bool
    masked: bool

    @property
    def in_service(self) -> bool:
        """Whether it runs now, and will after a boot."""
        return self.enabled and self.active


def state_of(unit: str) -> UnitState:
    """How ``unit`` stands."""
    show = ["systemctl", "show", "--property=UnitFileState,ActiveState,LoadState", unit]
    found = dict(line.split("=", 1) for line in require(show).stdout.splitlines() if "=" in line)
    return UnitState(
        enabled=found.get("UnitFileState") == "enabled",
        active=found.get("ActiveState") in _RUNNING,
        wanted=found.get("ActiveState") in (*_RUNNING, "activating"),
        masked=found.get("LoadState") == "masked",
    )


def running(pattern: str) -> list[str]:
    """Services that run. Instances of a template are left out: another unit starts them, and soon
    with the new release; one that fails and is started again will come with it by itself."""
    listed = require(
        [
            *("systemctl", "list-units", "--plain", "--no-legend", "--type=service"),
            *(f"--state={','.join(_RUNNING)}", pattern),
        ]
    )
    names = (line.split()[0] for line in listed.stdout.splitlines() if line.strip())
    return [name for name in names if "@" not in name]


def reload_manager() -> None:
    """Have systemd read the unit files anew."""
    require(["systemctl", "daemon-reload"])


def enable(unit: str) -> None:
    require(["systemctl", "enable", unit])


def disable(unit: str) -> None:
    require(["systemctl", "disable", unit])


def restart(unit: str) -> None:
    """Returns when the unit is ready (Type=notify); raises `CommandError` when it does not get so.

    Failures before count no more: they were those of another release.
    """
    run(["systemctl", "reset-failed", unit])
    require(["systemctl", "restart", unit])


def reload(unit: str) -> None:
    require(["systemctl", "reload", unit])


def retire(unit: str) -> None:
    """Stopped, disabled, and no failure remembered. One that systemd does not know is so."""
    run(["systemctl", "disable", "--now", unit])
    run(["systemctl", "reset-failed", unit])
    if state_of(unit).active:
        raise CommandError(f"{unit} cannot be stopped: systemctl status {unit}")


def retire_unit_of(path: Path) -> None:
    """Before a unit's file is removed: systemd keeps running what it knows no more, but forgets
    what it belongs to, such as a socket to its service."""
    if path.parent == UNIT_DIRECTORY and "@" not in path.name and os.path.lexists(path):
        retire(path.name)


def journal_of(units: Iterable[str]) -> list[str]:
    """The last lines that the units wrote since the boot; empty where there is no journal."""
    chosen = [f"--unit={unit}" for unit in units]
    if not chosen:
        return []
    try:
        # What a service said with its last breath may still be on its way.
        run(["journalctl", "--sync"], timeout_sec=60)
        done = run(
            [
                *("journalctl", "--boot", "--no-pager", "--output=short-iso"),
                *("-n", _JOURNAL_LINES, *chosen),
            ],
            timeout_sec=60,
        )
    except CommandError:
        return []
    return done.stdout.splitlines()
