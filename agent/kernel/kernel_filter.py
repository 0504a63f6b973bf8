"""Which commands are worth an event: the rules of the configuration as the kernel's settings.

One program serves every rule, so its filter is the union of what they watch. The same filter can
be applied to a recorded trace, so that a replay sees what the kernel would have let through.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from agent.configuration.schema import AnomalyConfig
from bpf import abi


def kernel_settings(anomalies: Iterable[AnomalyConfig]) -> NDArray[np.void]:
    """One `abi.SETTINGS` record: the union of what the rules ask for."""
    settings = np.zeros(1, abi.SETTINGS)
    for rule in anomalies:
        rule.ask_kernel(settings)
    return settings


def record_everything() -> NDArray[np.void]:
    """Settings that make an event of every command and of every lost connection."""
    settings = np.zeros(1, abi.SETTINGS)
    settings["slow_ns"] = 1
    settings["error_tracked"] = 1
    settings["reconnects"] = 1
    return settings


def apply_filter(settings: NDArray[np.void], events: NDArray[np.void]) -> NDArray[np.void]:
    """A copy of those ``events`` the kernel would have reported, with their ``tool`` bits."""
    slow_ns, error_tracked = settings["slow_ns"][0], settings["error_tracked"][0]
    limits = np.take(slow_ns, events["smbcommand"], mode="clip")
    slow = (limits > 0) & (events["metric_latency_ns"] >= limits)
    failed = np.take(error_tracked, np.maximum(-events["retval"], 0), mode="clip") > 0
    tool = slow * np.uint8(abi.TOOL_SMBSLOWER) | failed * np.uint8(abi.TOOL_SMBIOSNOOP)
    wanted = abi.TOOL_RECONNECT if settings["reconnects"][0] else 0
    tool = np.where(events["smbcommand"] == abi.NO_COMMAND, events["tool"] & wanted, tool)
    passed: NDArray[np.void] = events[tool > 0]
    passed["tool"] = tool[tool > 0]
    return passed
