"""The systemd units: what they give away, and what an old systemd makes of them."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.requirements import skip_or_fail

CONFIG = Path(__file__).parents[2] / "config"
UNITS = sorted(path.name for path in CONFIG.iterdir() if path.suffix in {".service", ".socket"})
OLDEST_SYSTEMD = 239  # EL 8

# systemd's NEWS: the version that brought a directive; 0: long before the oldest.
SINCE = {
    "Accept": 0,
    "After": 0,
    "AmbientCapabilities": 229,
    "CPUWeight": 232,
    "CapabilityBoundingSet": 0,
    "CollectMode": 236,
    "Description": 0,
    "Documentation": 0,
    "Environment": 0,
    "ExecReload": 0,
    "ExecStart": 0,
    "Group": 0,
    "IOWeight": 230,
    "IPAddressDeny": 235,
    "LimitCORE": 0,
    "LimitMEMLOCK": 0,
    "ListenSequentialPacket": 0,
    "LoadCredential": 247,
    "LockPersonality": 235,
    "LogsDirectory": 235,
    "LogsDirectoryMode": 235,
    "MaxConnections": 0,
    "MemoryDenyWriteExecute": 231,
    "MemoryMax": 231,
    "Nice": 0,
    "NoNewPrivileges": 187,
    "PartOf": 0,
    "PrivateDevices": 209,
    "PrivateNetwork": 0,
    "PrivateTmp": 0,
    "ProcSubset": 247,
    "ProtectClock": 245,
    "ProtectControlGroups": 232,
    "ProtectHome": 214,
    "ProtectHostname": 242,
    "ProtectKernelLogs": 244,
    "ProtectKernelModules": 232,
    "ProtectKernelTunables": 232,
    "ProtectProc": 247,
    "ProtectSystem": 214,
    "ReadOnlyPaths": 231,
    "ReadWritePaths": 231,
    "RemoveOnStop": 214,
    "Restart": 0,
    "RestartPreventExitStatus": 0,
    "RestartSec": 0,
    "RestrictAddressFamilies": 211,
    "RestrictNamespaces": 233,
    "RestrictRealtime": 231,
    "RestrictSUIDSGID": 242,
    "RuntimeDirectory": 211,
    "RuntimeDirectoryMode": 211,
    "RuntimeMaxSec": 229,
    "SetCredential": 247,
    "SocketMode": 0,
    "StateDirectory": 235,
    "StateDirectoryMode": 235,
    "SystemCallArchitectures": 209,
    "SystemCallErrorNumber": 209,
    "SystemCallFilter": 187,
    "TasksMax": 227,
    "TimeoutStartSec": 188,
    "TimeoutStopSec": 188,
    "Type": 0,
    "UMask": 0,
    "User": 0,
    "WantedBy": 0,
    "Wants": 0,
    "WatchdogSec": 183,
}
# An older systemd says that it does not know them, and goes on without; then there is less
# hardening, and for the shipper's key docs/security.md names the other way.
HARMLESS_WITHOUT = {
    "LoadCredential",
    "ProcSubset",
    "ProtectClock",
    "ProtectHostname",
    "ProtectKernelLogs",
    "ProtectProc",
    "RestrictSUIDSGID",
    "SetCredential",
}
GROUPS_SINCE = {
    "@debug": 231,
    "@keyring": 231,
    "@privileged": 231,
    "@resources": 233,
    "@system-service": 239,
}
# systemd-analyze security, 0 to 10; what it is today stands in docs/security.md.
EXPOSURE_BELOW = {
    "aod-agent.service": 4.0,
    "aod-loader@.service": 3.0,
    "aod-shipper.service": 2.0,
}


def directives(unit: str) -> list[tuple[str, str]]:
    """Names and values, in their order."""
    lines = (CONFIG / unit).read_text().splitlines()
    pairs = (line.partition("=") for line in lines if re.match(r"[A-Z]\w*=", line))
    return [(name, value) for name, _, value in pairs]


@pytest.mark.parametrize("unit", UNITS)
def test_an_old_systemd_needs_nothing_that_it_does_not_know(unit: str) -> None:
    names = {name for name, _ in directives(unit)}
    assert names <= SINCE.keys(), "look them up in systemd's NEWS"
    assert {name for name in names if SINCE[name] > OLDEST_SYSTEMD} <= HARMLESS_WITHOUT


@pytest.mark.parametrize("unit", UNITS)
def test_an_old_systemd_knows_the_groups_of_system_calls(unit: str) -> None:
    values = [value for name, value in directives(unit) if name == "SystemCallFilter"]
    groups = set(re.findall(r"@[\w-]+", " ".join(values)))
    assert groups <= GROUPS_SINCE.keys()
    assert all(GROUPS_SINCE[group] <= OLDEST_SYSTEMD for group in groups)


def test_tables_have_no_line_too_many() -> None:
    names = {name for unit in UNITS for name, _ in directives(unit)}
    assert SINCE.keys() == names
    assert {name for name in names if SINCE[name] > OLDEST_SYSTEMD} == HARMLESS_WITHOUT


@pytest.mark.parametrize("unit", sorted(EXPOSURE_BELOW))
def test_exposure(unit: str) -> None:
    answer = analyze("security", "--offline=true", str(CONFIG / unit))
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", answer.stdout)
    if not found:
        skip_or_fail(f"systemd-analyze is too old: {answer.stderr}")
    assert float(found[1]) < EXPOSURE_BELOW[unit], answer.stdout


def test_every_unit_with_a_process_has_a_limit_of_exposure_and_no_core_dumps() -> None:
    services = {unit for unit in UNITS if unit.endswith(".service")}
    assert services == EXPOSURE_BELOW.keys()
    assert all(("LimitCORE", "0") in directives(unit) for unit in services)


def test_systemd_finds_no_mistake(tmp_path: Path) -> None:
    for unit in UNITS:
        text = (CONFIG / unit).read_text()
        (tmp_path / unit).write_text(re.sub(r"/opt/aod/current/bin/\S+", "/bin/true", text))
    answer = analyze("verify", "--man=no", *(str(tmp_path / unit) for unit in UNITS))
    said = answer.stdout + answer.stderr
    assert [line for line in said.splitlines() if "aod-" in line or str(tmp_path) in line] == []


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    if shutil.which("systemd-analyze") is None:
        skip_or_fail("needs systemd-analyze")
    command = ["systemd-analyze", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
