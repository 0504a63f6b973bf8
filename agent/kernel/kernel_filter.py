"""Which commands are worth an event: the rules of the configuration as the kernel's settings.

One program serves every rule, so its filter is the union of what they watch. The same filter can
be applied to a recorded trace, so that a replay sees what the kernel would have let through.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from agent.configuration.schema import AnomalyConfig, AnomalyType
from bpf import abi


def kernel_settings(anomalies: Iterable[AnomalyConfig]) -> NDArray[np.void]:
    """One `abi.SETTINGS` record: per command the lowest limit of any rule, and the errno set.

    A limit of 0 ms becomes 1 ns, since 0 means "never" to the kernel program.
    """
    settings = np.zeros(1, abi.SETTINGS)
    slow_ns, error_tracked = settings["slow_ns"][0], settings["error_tracked"][0]
    for rule in anomalies:
        if rule.type is AnomalyType.ERROR:
            error_tracked[[min(code, abi.ERRNOS - 1) for code in rule.track]] = 1
            continue
        for command, limit_ns in rule.limits_ns().items():
            current = int(slow_ns[command]) or limit_ns
            slow_ns[command] = max(1, min(current, limit_ns))
    return settings


def record_everything() -> NDArray[np.void]:
    """Settings that make an event of every command."""
    settings = np.zeros(1, abi.SETTINGS)
    settings["slow_ns"] = 1
    settings["error_tracked"] = 1
    return settings


def apply_filter(settings: NDArray[np.void], events: NDArray[np.void]) -> NDArray[np.void]:
    """A copy of those ``events`` the kernel would have reported, with their ``tool`` bits."""
    slow_ns, error_tracked = settings["slow_ns"][0], settings["error_tracked"][0]
    limits = np.take(slow_ns, events["smbcommand"], mode="clip")
    slow = (limits > 0) & (events["metric_latency_ns"] >= limits)
    failed = np.take(error_tracked, np.maximum(-events["retval"], 0), mode="clip") > 0
    tool = slow * np.uint8(abi.TOOL_SMBSLOWER) | failed * np.uint8(abi.TOOL_SMBIOSNOOP)
    passed: NDArray[np.void] = events[tool > 0]
    passed["tool"] = tool[tool > 0]
    return passed
