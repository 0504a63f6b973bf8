"""All anomaly types: a new one is a file here and a line in the registry."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from agent.anomaly_types.anomaly_type import AnomalyType
from agent.anomaly_types.drift import DRIFT
from agent.anomaly_types.error import ERROR
from agent.anomaly_types.latency import LATENCY
from agent.anomaly_types.reconnect import RECONNECT
from agent.anomaly_types.stall import STALL

ANOMALY_TYPES: Mapping[str, AnomalyType] = MappingProxyType(
    {kind.name: kind for kind in (LATENCY, ERROR, STALL, RECONNECT, DRIFT)}
)
